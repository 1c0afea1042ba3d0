"""The kinds of API that a rented model stands behind: where each is asked, and with which key.

In: an address, a path, a model, a key. Out: the URL and the header. Invariant: a key goes into the
header that its kind reads, and nowhere else (test_azure_and_anthropic_are_asked_in_their_way).
Sources: the API references of OpenAI, Azure OpenAI ("REST API versioning") and Anthropic
("Versions").
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from ownweights.core.errors import InputError

KINDS = ("openai", "azure", "anthropic")


@dataclass(frozen=True, slots=True)
class Kind:
    """OpenAI's API, Azure's form of it, or Anthropic's Messages.

    `max_tokens` is the limit for requests to Messages that name none.
    """

    name: str = "openai"
    api_version: str = ""
    max_tokens: int | None = None

    @property
    def speaks_messages(self) -> bool:
        """Whether it takes Messages, and not chat completions."""
        return self.name == "anthropic"

    @property
    def answer_path(self) -> str:
        """Where it is asked for an answer."""
        return "/messages" if self.speaks_messages else "/chat/completions"

    def url(self, base_url: str, path: str, model: str, query: str = "") -> str:
        """Where a path is asked; Azure's deployments are named in it.

        Raises: InputError for a deployment that is not named, or cannot be
        """
        base = base_url.rstrip("/")
        if self.name == "azure" and self.api_version:
            if path == "/models":
                base += "/openai"
            elif model in (".", ".."):  # a step within the path, however it is quoted
                raise InputError(f"{model!r} names no Azure deployment")
            elif model:
                base += f"/openai/deployments/{quote(model, safe='')}"
            else:
                raise InputError("an Azure deployment is named by 'model', and there is none")
            query = "&".join(filter(None, [query, f"api-version={quote(self.api_version)}"]))
        return base + path + (f"?{query}" if query else "")

    def key_header(self, key: str) -> tuple[str, str]:
        """The header that a key goes into."""
        if self.name == "anthropic":
            return "x-api-key", key
        return ("api-key", key) if self.name == "azure" else ("authorization", f"Bearer {key}")
