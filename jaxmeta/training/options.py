"""The learners' settings, as typed dataclasses: the command line, `config.json`, presets."""

from dataclasses import dataclass
from typing import ClassVar, Literal

Differentiate = Literal["second-order", "mixed-mode", "rematerialised", "reverse-mode"]


# --- what several have --------------------------------------------------------------------


@dataclass(frozen=True)
class _Steps:
    inner_steps: int = 1
    """Inner steps in training."""
    eval_inner_steps: int = 3
    """Inner steps in evaluation."""


@dataclass(frozen=True)
class _Batches:
    inner_batch: int | None = None
    """Support examples an inner step; None: all of them."""


@dataclass(frozen=True)
class _GradientDescent(_Steps):
    inner_rate: float = 0.4
    """Learning rate of the inner loop."""
    inner_optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimizer of the inner loop."""


@dataclass(frozen=True)
class _Exact:
    differentiate: Differentiate = "second-order"
    """How the meta-gradient goes back through the inner steps, exactly: mixed-mode (forward over
    reverse) takes least time, rematerialised (each step computed anew) as little memory,
    reverse-mode most of it; second-order is the best of these, mixed-mode."""
    truncate: int | None = None
    """Differentiate through this many last inner steps only; None: all."""


# --- the gradient family ------------------------------------------------------------------


@dataclass(frozen=True)
class Maml(_Exact, _Batches, _GradientDescent):
    """MAML (Finn et al. 2017): learn an initialisation by gradients through the inner loop."""

    name: ClassVar[str] = "maml"


@dataclass(frozen=True)
class FirstOrderMaml(_Batches, _GradientDescent):
    """First-order MAML (Finn et al. 2017): inner gradients taken as constants."""

    name: ClassVar[str] = "first-order-maml"


@dataclass(frozen=True)
class Anil(_Exact, _Batches, _GradientDescent):
    """ANIL (Raghu et al. 2020): MAML in which only the head adapts."""

    name: ClassVar[str] = "anil"


@dataclass(frozen=True)
class Boil(_Exact, _Batches, _GradientDescent):
    """BOIL (Oh et al. 2021): MAML in which all but the head adapts."""

    name: ClassVar[str] = "boil"


@dataclass(frozen=True)
class MetaSgd(_Exact, _Batches, _Steps):
    """Meta-SGD (Li et al. 2017): MAML with a learned inner rate for every parameter."""

    name: ClassVar[str] = "meta-sgd"
    initial_rate: tuple[float, float] = (0.005, 0.1)
    """The learned rates start uniformly between these two."""
    eval_inner_steps: int = 1
    """Inner steps in evaluation."""


@dataclass(frozen=True)
class MetaCurvature(_Exact, _Batches, _GradientDescent):
    """Meta-Curvature (Park, Oliva 2019): MAML with a learned preconditioner of its gradients."""

    name: ClassVar[str] = "meta-curvature"


@dataclass(frozen=True)
class MamlPlusPlus(_Exact, _Batches, _Steps):
    """MAML++ (Antoniou et al. 2019): MAML with rates and normalisation learned per step, and a
    loss and an order of differentiation that anneal."""

    name: ClassVar[str] = "maml-plus-plus"
    inner_rate: float = 0.1
    """Learning rate of the inner loop; where the learned rates start."""
    inner_steps: int = 5
    """Inner steps in training."""
    eval_inner_steps: int = 5
    """Inner steps in evaluation."""
    learned_rates: bool = True
    """Learn a rate for every parameter tensor and inner step."""
    normalisation_per_step: bool = True
    """Scale and shift of every normalisation are learned for each inner step, not adapted."""
    every_step_part: float = 0.1
    """Part of the training in which the losses after every inner step count."""
    first_order_part: float = 0.0
    """Part of the training, at its beginning, with first-order gradients."""


@dataclass(frozen=True)
class Imaml(_GradientDescent):
    """iMAML (Rajeswaran et al. 2019): a meta-gradient that needs only where the inner loop ends."""

    name: ClassVar[str] = "imaml"
    inner_rate: float = 0.1
    """Learning rate of the inner loop."""
    inner_steps: int = 16
    """Inner steps in training."""
    eval_inner_steps: int = 16
    """Inner steps in evaluation."""
    strength: float = 2.0
    """How strongly adaptation is held near the initialisation, at test too: λ."""
    damping: float = 1.0
    """Added to λ in the meta-gradient."""
    solver: Literal["conjugate-gradients", "neumann"] = "conjugate-gradients"
    """What solves the meta-gradient's linear system; the Neumann series converges where the loss is
    curved less than λ and the damping."""
    solver_steps: int = 5
    """Conjugate-gradient steps, or terms of the Neumann series."""


@dataclass(frozen=True)
class Cavia(_Exact, _Batches, _GradientDescent):
    """CAVIA (Zintgraf et al. 2019): a small context adapts, the network it conditions is shared."""

    name: ClassVar[str] = "cavia"
    inner_rate: float = 1.0
    """Learning rate of the inner loop."""
    inner_steps: int = 2
    """Inner steps in training."""
    eval_inner_steps: int = 2
    """Inner steps in evaluation."""
    context: int = 100
    """Numbers of the context."""
    conditions: str | None = None
    """Parameters that the context moves, by name; None: scale and shift of the third block's
    last normalisation, or the bias of a perceptron's first layer."""


@dataclass(frozen=True)
class R2d2:
    """R2-D2 (Bertinetto et al. 2019): ridge regression on learned features, in closed form."""

    name: ClassVar[str] = "r2d2"


@dataclass(frozen=True)
class ProtoMaml(_Exact, _Batches, _GradientDescent):
    """Proto-MAML (Triantafillou et al. 2020): MAML whose head starts at the class means."""

    name: ClassVar[str] = "proto-maml"
    inner_rate: float = 0.05
    """Learning rate of the inner loop."""


@dataclass(frozen=True)
class MetaLstm(_Batches, _Steps):
    """Meta-LSTM (Ravi, Larochelle 2017): an LSTM whose cell state is the learner."""

    name: ClassVar[str] = "meta-lstm"
    inner_steps: int = 12
    """Inner steps in training."""
    eval_inner_steps: int = 12
    """Inner steps in evaluation."""
    lstm_width: int = 20
    """Numbers that the LSTM keeps for each parameter."""
    inner_rate: float = 0.01
    """About the learning rate of the inner loop at first; the LSTM learns another."""


@dataclass(frozen=True)
class MetaTransfer(_Exact, _GradientDescent):
    """Meta-transfer learning (Sun et al. 2019): scale and shift a frozen pre-trained network."""

    name: ClassVar[str] = "meta-transfer"
    pretrained: str | None = None
    """What `python -m experiments.pretrain` wrote: its run folder, or the file backbone.npz."""
    inner_rate: float = 0.01
    """Learning rate of the head."""
    filter_rate: float = 1e-4
    """Outer learning rate of scales and shifts; where the head starts takes --outer-rate."""
    inner_steps: int = 100
    """Inner steps in training."""
    eval_inner_steps: int = 100
    """Inner steps in evaluation."""


@dataclass(frozen=True)
class Reptile(_Batches, _Steps):
    """Reptile (Nichol et al. 2018): move towards where each task's training ends."""

    name: ClassVar[str] = "reptile"
    inner_rate: float = 1e-3
    """Learning rate of the inner loop."""
    inner_steps: int = 5
    """Inner steps in training."""
    eval_inner_steps: int = 50
    """Inner steps in evaluation."""
    inner_batch: int | None = 10
    """Support examples an inner step, the whole support set where it is smaller."""
    inner_optimizer: Literal["sgd", "adam", "rmsprop"] = "rmsprop"
    """Optimizer of the inner loop. rmsprop: Adam with β1 = 0 whose second moments run on from
    task to task, as in the authors' code; adam: they start anew in every task."""


# --- metrics ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prototypical:
    """Prototypical networks (Snell et al. 2017): classify by the nearest class mean."""

    name: ClassVar[str] = "prototypical"
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """Squared Euclidean as published, or cosine with a learned temperature."""


@dataclass(frozen=True)
class SemiSupervisedPrototypical:
    """Semi-supervised prototypical networks (Ren et al. 2018): unlabelled examples refine the class
    means. Give --unlabelled, the number of these."""

    name: ClassVar[str] = "semi-supervised-prototypical"
    refinements: int = 1
    """Times that the unlabelled examples refine the prototypes."""
    distractor_cluster: bool = False
    """One cluster more, for unlabelled examples that are of no class."""


@dataclass(frozen=True)
class Matching:
    """Matching networks (Vinyals et al. 2016): take the labels of what is attended to."""

    name: ClassVar[str] = "matching"
    full_context: bool = False
    """Embed each support example in the light of the others, the query in that of the support."""
    reads: int = 5
    """Read-outs of the query's LSTM, with full context."""


@dataclass(frozen=True)
class Siamese:
    """Siamese networks (Koch et al. 2015): learn to verify, classify by the likeness."""

    name: ClassVar[str] = "siamese"
    features: int = 256
    """Numbers of an image that are compared, from a dense layer at the network's end."""


@dataclass(frozen=True)
class Relation:
    """Relation networks (Sung et al. 2018): how alike two examples are is learned, too."""

    name: ClassVar[str] = "relation"


# --- memories and processes ---------------------------------------------------------------


@dataclass(frozen=True)
class Mann:
    """Memory-augmented network (Santoro et al. 2016): write the support set into a memory."""

    name: ClassVar[str] = "mann"
    slots: int = 128
    """Rows of the memory."""
    slot_width: int = 40
    """Numbers of a row."""
    controller_width: int = 200
    """Numbers of the LSTM that moves the heads."""
    heads: int = 4
    """Heads, each of which reads and writes."""
    strength: float | None = None
    """Learned sharpness of the reads, at first; None: not learned, 1, as published."""


@dataclass(frozen=True)
class Snail:
    """SNAIL (Mishra et al. 2018): temporal convolutions and causal attention over the support."""

    name: ClassVar[str] = "snail"
    features: int = 64
    """Numbers of an embedded example, by a linear layer behind the network."""
    filters: int = 128
    """Of each convolution."""


@dataclass(frozen=True)
class ConditionalNeuralProcess:
    """Conditional neural process (Garnelo et al. 2018): average the encoded support, decode."""

    name: ClassVar[str] = "conditional-neural-process"
    representation: int = 128
    """Numbers of the layers of encoder and decoder, and of the representation; of images, of the
    decoder's layers alone."""
    decoder: Literal["class-by-class", "joint"] = "class-by-class"
    """Of images: the same weights compare a query with each class, or, as published, one network
    sees all classes side by side."""


@dataclass(frozen=True)
class NeuralProcess:
    """Neural process (Garnelo et al. 2018): a latent variable for each function."""

    name: ClassVar[str] = "neural-process"
    representation: int = 128
    """Numbers of the layers of encoder and decoder, and of the latent variable."""
    samples: int = 64
    """Draws of the latent variable at test; training takes one."""


@dataclass(frozen=True)
class AttentiveNeuralProcess(NeuralProcess):
    """Attentive neural process (Kim et al. 2019): each target attends to the context."""

    name: ClassVar[str] = "attentive-neural-process"
    attention: Literal["laplace", "dot-product", "multi-head"] = "multi-head"
    """How a target attends to the context."""
    heads: int = 8
    """Of the multi-head attention."""


@dataclass(frozen=True)
class TransformerNeuralProcess:
    """Transformer neural process (Nguyen, Grover 2022): tokens that attend to the context."""

    name: ClassVar[str] = "transformer-neural-process"
    width: int = 64
    """Of a token."""
    layers: int = 4
    """Blocks of attention and perceptron."""
    heads: int = 4
    """Of the attention."""


Process = (
    ConditionalNeuralProcess | NeuralProcess | AttentiveNeuralProcess | TransformerNeuralProcess
)
GradientRegressor = (
    Maml
    | FirstOrderMaml
    | Anil
    | Boil
    | MetaSgd
    | MetaCurvature
    | MamlPlusPlus
    | Imaml
    | Cavia
    | MetaLstm
    | Reptile
)
Regressor = GradientRegressor | Process
Learner = (
    GradientRegressor
    | R2d2
    | ProtoMaml
    | MetaTransfer
    | Prototypical
    | SemiSupervisedPrototypical
    | Matching
    | Siamese
    | Relation
    | Mann
    | Snail
    | ConditionalNeuralProcess
)
