"""Text: trained encoders and their tokens."""

from jaxmeta.data.text.encoder import Encoder, load_encoder
from jaxmeta.text import BertConfig, Tokens

__all__ = ["BertConfig", "Encoder", "Tokens", "load_encoder"]
