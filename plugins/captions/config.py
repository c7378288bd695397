"""Configurations of the caption plugins."""

from __future__ import annotations

import re
from string import Formatter
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ...core.config import Checkpoint, PluginConfig
from ..data.icd11 import Terms

PREFIX = "An image of <lesion> on <skin>."
"""DiDGen's prefix; the two placeholder tokens are added to the vocabulary in training."""
ENDPOINT_KEYS = ("url", "model", "cache")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class CaptionConfig(PluginConfig):
    """How sentences are written: what all caption plugins can be told."""

    backend: Literal["measured", "endpoint"] = Field("measured", description="who writes the sentences")
    wording: Literal["varied", "plain"] = Field(
        "varied", description="measured: whether a case's seed chooses between wordings of the same facts"
    )
    url: str | None = Field(None, description="endpoint: base address of an OpenAI-compatible API, such as .../v1")
    model: str | None = Field(None, description="endpoint: name of the model there")
    key_variable: str | None = Field(
        None, description="endpoint: environment variable that holds the key; the key itself is written nowhere"
    )
    cache: str | None = Field(None, description="endpoint: JSONL file of all answers, so that nothing is asked twice")
    timeout_s: float = Field(60.0, gt=0, description="endpoint: seconds to wait for an answer")
    retries: int = Field(5, ge=0, description="endpoint: further attempts after a failure that may pass")
    requests_per_minute: float = Field(60.0, gt=0, description="endpoint: most requests in a minute")
    concurrency: int = Field(4, ge=1, le=64, description="endpoint: requests in flight at once")
    max_tokens: int = Field(
        77, ge=8, le=1024, description="CLIP tokens of prefix and sentence together, start and end token included"
    )
    prefix: str = Field(
        PREFIX, description="text before every sentence; {label} is the case's class, <...> one added token"
    )
    terms: Terms = Field(
        "plain",
        description="icd-11: classes as ICD-11 names them; models are told class and prefix, and to use its terms",
    )

    @field_validator("prefix")
    @classmethod
    def _only_label(cls, value: str) -> str:
        check_prefix(value)
        return value

    @field_validator("url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
            raise ValueError("an address begins with http:// or https:// and holds no user name, query or fragment")
        return value

    @field_validator("key_variable")
    @classmethod
    def _variable_name(cls, value: str | None) -> str | None:
        if value is not None and not VARIABLE.fullmatch(value):
            raise ValueError("the name of an environment variable is meant, not the key itself")
        return value

    @model_validator(mode="after")
    def _endpoint_is_whole(self) -> Self:
        missing = [key for key in ENDPOINT_KEYS if getattr(self, key) is None]
        if self.backend == "endpoint" and missing:
            raise ValueError(f"backend endpoint needs {', '.join(missing)}")
        return self


class DescriptionConfig(CaptionConfig):
    """How the images at hand are described."""

    backend: Literal["measured", "endpoint", "transformers"] = Field(  # type: ignore[assignment]
        "measured", description="who writes the sentences"
    )
    checkpoint: Checkpoint | None = Field(
        None, description="transformers: vision-language model, a folder or a name on the hub; safetensors only"
    )
    captions: Checkpoint | None = Field(
        None, description="JSONL of reviewed captions by image id, which are taken instead of new ones"
    )

    @model_validator(mode="after")
    def _model_is_named(self) -> Self:
        if self.backend == "transformers" and self.checkpoint is None:
            raise ValueError("backend transformers needs checkpoint, a folder or a name on the hub")
        return self


def check_prefix(prefix: str) -> None:
    """Raise ValueError unless the only field of ``prefix`` is ``{label}``."""
    try:
        fields = [parts[1:] for parts in Formatter().parse(prefix) if parts[1] is not None]
    except ValueError as error:
        raise ValueError(f"the only field of a prefix is {{label}}: {error}") from None
    if any(field != ("label", "", None) for field in fields) or "{{" in prefix or "}}" in prefix:
        raise ValueError("the only field of a prefix is {label}")
