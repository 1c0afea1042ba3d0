"""Pre-training of a base: recipe and corpus in, a hub-shaped folder of open weights out.

Everything is drawn by seed and sorted names, so the same recipe on the same text repeats; a killed
run resumes from its checkpoint. The text stays in the work folder and is never part of the base.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from ownweights.core.artefact import hash_json, write_atomic
from ownweights.core.errors import ArtefactError, InputError, SettingsError, nearest
from ownweights.core.strict import Limits, check_value, parse_toml, setting
from ownweights.core.tables import MAX_SEED
from ownweights.dataset.split import hash_fraction
from ownweights.model.config import PLAIN, ModelConfig
from ownweights.model.transformer import Transformer, initialise
from ownweights.student import corpus as text_of
from ownweights.student.drills import Drill, make_drill, texts_of
from ownweights.student.tokens import (
    READ_ONLY,
    TokenFile,
    encode_documents,
    encode_drills,
    encode_prompts,
)
from ownweights.student.trainer import Batch, Recipe, StepReport, Trainer, batch_loss
from ownweights.student.vocabulary import (
    BOS_ID,
    END_ID,
    MAX_VOCAB_SIZE,
    MIN_VOCAB_SIZE,
    PAD_ID,
    train_tokenizer,
)

CHAPTER_SALT = "seedling-chapters-1"
SOURCE_KEYS = ("name", "what", "licence")
TOKENS_NAME, TEXT_CARD, TOKENIZER_NAME = "tokens.u16", "text.json", "tokenizer.json"


@dataclass(frozen=True, slots=True)
class TextRecipe:
    """What is read and how often."""

    workloads: tuple[str, ...]
    held_out_from: tuple[str, ...]
    document_frac: float = setting(1.0, at_least=0, at_most=1)
    prompt_repeats: int = setting(1, at_least=0)
    num_drills: int = setting(0, at_least=0)
    prompt_drill_frac: float = setting(0.0, at_least=0, at_most=1)
    tokenizer_every: int = setting(1, at_least=1)


@dataclass(frozen=True, slots=True)
class TrainRecipe:
    """How long, in what portions and at what rates."""

    steps: int = setting(at_least=1)
    rows: int = setting(at_least=1)
    length: int = setting(at_least=2)
    learning_rate: float = setting(at_least=0, at_most=1, is_open=True)
    muon_learning_rate: float = setting(at_least=0, at_most=1, is_open=True)
    weight_decay: float = setting(0.0, at_least=0, at_most=1)
    warmup_frac: float = setting(0.02, at_least=0, at_most=1)
    decay_frac: float = setting(0.3, at_least=0, at_most=1)
    long_frac: float = setting(0.0, at_least=0, at_most=1)
    seed: int = setting(1, at_least=0, at_most=MAX_SEED)


@dataclass(frozen=True, slots=True)
class BaseRecipe:
    """The whole recipe of a base; `sources` say what is read, and do not change what is trained."""

    shape: ModelConfig
    text: TextRecipe
    train: TrainRecipe
    sources: tuple[dict[str, str], ...] = ()

    def trained_by(self) -> dict[str, Any]:
        """Everything that decides the weights, as plain JSON."""
        parts = {"shape": self.shape, "text": self.text, "train": self.train}
        plain = {name: dataclasses.asdict(part) for name, part in parts.items()}
        plain["shape"]["eos_token_ids"] = list(self.shape.eos_token_ids)
        del plain["shape"]["variant"]  # a base of ours is a plain Llama
        return plain


def read_recipe(path: Path) -> BaseRecipe:
    """The recipe in a TOML file.

    Raises: SettingsError naming the table or key that is unknown, missing or of another kind
    """
    raw = _read_tables(path)
    fixed = {
        "bos_token_id": BOS_ID, "pad_token_id": PAD_ID, "eos_token_ids": (END_ID,),
        "variant": PLAIN,
    }  # fmt: skip
    recipe = BaseRecipe(
        _table(ModelConfig, raw["shape"], f"{path}: [shape]", fixed),
        _table(TextRecipe, raw["text"], f"{path}: [text]"),
        _table(TrainRecipe, raw["train"], f"{path}: [train]"),
        tuple(_source(table, path) for table in raw.get("sources", ())),
    )
    check_value(
        recipe.shape.vocab_size, int, Limits(MIN_VOCAB_SIZE, MAX_VOCAB_SIZE),
        f"{path}: [shape] vocab_size",
    )  # fmt: skip
    check_value(
        recipe.train.length, int, Limits(at_most=recipe.shape.max_position_embeddings),
        f"{path}: [train] length",
    )  # fmt: skip
    return recipe


def _read_tables(path: Path) -> dict[str, Any]:
    try:
        raw = parse_toml(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        raise SettingsError(f"there is no recipe {path}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: {error}") from None
    named = set(raw) - {"sources"}
    if named != {"shape", "text", "train"} or not all(
        isinstance(raw[name], dict) for name in named
    ):
        raise SettingsError(
            f"{path}: expected the tables shape, text, train and sources, got {sorted(raw)}"
        )
    return raw


def _source(table: object, path: Path) -> dict[str, str]:
    """What was read and under which licence, as it goes on the card."""
    if not isinstance(table, dict) or set(table) != set(SOURCE_KEYS):
        raise SettingsError(f"{path}: each of [[sources]] needs {', '.join(SOURCE_KEYS)}")
    return {key: check_value(table[key], str, Limits(), f"{path}: {key}") for key in SOURCE_KEYS}


def _table(
    kind: type[Any], values: dict[str, Any], where: str, fixed: Mapping[str, Any] | None = None
) -> Any:
    fixed = fixed or {}
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind) if field.name not in fixed}
    for key in values:
        if key not in known:
            like = nearest(key, known)
            raise SettingsError(
                f"{where}: unknown key {key!r}", hint=f"did you mean {like!r}?" if like else None
            )
    checked = {
        key: check_value(value, hints[key], _limits(known[key], hints[key]), f"{where} {key}")
        for key, value in values.items()
    }
    try:
        return kind(**checked, **fixed)
    except TypeError:
        lacking = [key for key, one in known.items() if key not in values and _is_needed(one)]
        raise SettingsError(f"{where}: {', '.join(lacking)} must be given") from None


def _limits(field: dataclasses.Field[Any], kind: Any) -> Limits:
    """The limits a field names; sizes and rates of a shape are positive."""
    plain = Limits() if kind is bool else Limits(at_least=0, is_open=True)
    return field.metadata.get("limits", plain)


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def prepare_text(recipe: BaseRecipe, corpus: Path, traffic: Path, work: Path) -> dict[str, Any]:
    """Read, clean and tokenise the text into `work`, unless it is there already; its card."""
    wanted = hash_json(
        [dataclasses.asdict(recipe.text), recipe.shape.vocab_size, recipe.train.seed]
    )
    card_path = work / TEXT_CARD
    if card_path.is_file():
        card: dict[str, Any] = json.loads(card_path.read_text("utf-8"))
        if card["recipe_hash"] == wanted:
            return card
        raise ArtefactError(f"{work} holds text of another recipe", hint="choose an empty folder")
    work.mkdir(parents=True, exist_ok=True)
    counts = text_of.Counts()
    forbidden = text_of.read_prompts(_traffic_files(traffic, recipe.text.held_out_from))
    held_out = text_of.HeldOutText(forbidden.held_out)
    allowed = text_of.read_prompts(_traffic_files(traffic, recipe.text.workloads))
    prompts = text_of.clean_prompts(allowed, held_out, counts)
    documents = [
        text_of.clean_text(chapter, held_out, counts)
        for chapter in _chapters(corpus, recipe.text.document_frac)
    ]
    drills = _drills(recipe, documents, prompts, held_out)
    taught = [*documents, *prompts, *("\n".join(drill) for drill in drills)]
    tokenizer = train_tokenizer(taught[:: recipe.text.tokenizer_every], recipe.shape.vocab_size)
    tokenizer.save(str(work / TOKENIZER_NAME))
    num_tokens = _write_tokens(
        recipe, [*encode_documents(tokenizer, documents), *encode_drills(tokenizer, drills)],
        encode_prompts(tokenizer, prompts), work / TOKENS_NAME,
    )  # fmt: skip
    card = {
        "recipe_hash": wanted,
        "num_tokens": num_tokens,
        "num_documents": len(documents),
        "num_characters": sum(map(len, documents)),
        "removed_sentences": counts.removed_sentences,
        "prompts": counts.prompts,
        "removed_prompts": counts.removed_prompts,
        "drills": len(drills),
    }
    write_atomic(card_path, json.dumps(card, indent=1).encode())
    return card


def _traffic_files(folder: Path, workloads: Sequence[str]) -> list[Path]:
    return [folder / f"{name}.jsonl.gz" for name in workloads]


def _chapters(corpus: Path, frac: float) -> Iterator[str]:
    """A share of the chapters of the training books and the handbooks, chosen by hash."""
    texts = [*text_of.read_books(corpus, held_out=False), *text_of.read_handbooks(corpus)]
    chapters = (chapter for text in texts for chapter in text_of.chapters_of(text))
    for index, chapter in enumerate(chapters):
        if hash_fraction(CHAPTER_SALT, str(index)) < frac:
            yield chapter


def _drills(
    recipe: BaseRecipe, documents: Sequence[str], prompts: Sequence[str],
    held_out: text_of.HeldOutText,
) -> list[Drill]:  # fmt: skip
    """Exercises over sentences of the documents and, for a share of them, training prompts."""
    sentences = [s for text in documents for s in text_of.sentences_of(text)]
    rng = random.Random(recipe.train.seed)
    num_drills = recipe.text.num_drills if sentences else 0
    prompt_frac = recipe.text.prompt_drill_frac if prompts else 0.0

    def sentence() -> str:
        return rng.choice(prompts if rng.random() < prompt_frac else sentences)

    made = (make_drill(sentence(), rng) for _ in range(num_drills))
    # the first words of a sentence may be a request where the whole sentence is none
    return [drill for drill in made if not any(map(held_out.is_in, texts_of(drill)))]


def _write_tokens(
    recipe: BaseRecipe, pieces: list[np.ndarray], asked: Iterable[np.ndarray], path: Path
) -> int:
    pieces = [*pieces, *(list(asked) * recipe.text.prompt_repeats)]
    if not pieces:
        raise InputError("nothing is left to read", hint="give more text, or raise document_frac")
    # whole documents are shuffled here, windows once more when they are read
    order = np.random.default_rng(recipe.train.seed).permutation(len(pieces))
    ids = np.concatenate([pieces[i] for i in order])
    ids.tofile(path)
    return len(ids)


class WindowPlan:
    """Pre-training batches: windows of the token file, the last steps at full context."""

    def __init__(self, tokens: TokenFile, recipe: BaseRecipe) -> None:
        self.tokens, self.recipe = tokens, recipe

    @property
    def num_steps(self) -> int:
        return self.recipe.train.steps

    def batches(self, step: int) -> Sequence[Batch]:
        train, longest = self.recipe.train, self.recipe.shape.max_position_embeddings
        length, rows = train.length, train.rows
        if step >= train.steps * (1 - train.long_frac):
            length, rows = longest, max(1, train.rows * train.length // longest)
        windows = torch.from_numpy(
            self.tokens.windows(length, rows, step=step, seed=train.seed)
        )  # (B, T)
        return [next_token_batch(windows)]


def next_token_batch(rows: torch.Tensor) -> Batch:
    """Every position trains its successor, unless that is only read. Shapes: rows (B, T + 1)"""
    tokens, targets = rows[:, :-1] & ~READ_ONLY, rows[:, 1:].flatten()
    where = torch.nonzero(targets < READ_ONLY).flatten()
    return Batch(tokens.contiguous(), where, targets[where])


def pretrain(
    recipe: BaseRecipe, work: Path, *, checkpoint_every: int = 100, branch_from: Path | None = None
) -> Iterator[tuple[StepReport, Trainer]]:
    """Train the base on prepared text, resuming from `work`'s checkpoint.

    `branch_from` starts from another run's checkpoint (a plateau of the same recipe, longer).
    """
    torch.manual_seed(recipe.train.seed)
    model = Transformer(recipe.shape)
    initialise(model, recipe.train.seed)
    train = recipe.train
    rates = Recipe(
        train.learning_rate, train.muon_learning_rate, train.weight_decay, train.warmup_frac,
        train.decay_frac,
    )  # fmt: skip
    plan = WindowPlan(TokenFile.open(work / TOKENS_NAME), recipe)
    trainer = Trainer(model, plan, recipe=rates, run_id=hash_json(recipe.trained_by())[:12])
    if not trainer.load_checkpoint(work) and branch_from is not None:
        trainer.load_checkpoint(branch_from, other_plan=True)
    plateau_end = int(train.steps * (1 - train.decay_frac))
    for report in trainer:
        if report.step % checkpoint_every == 0 or report.step == train.steps:
            trainer.save_checkpoint(work)
        if report.step == plateau_end:
            trainer.save_checkpoint(work / "plateau")
        yield report, trainer


@torch.inference_mode()
def bits_per_byte(model: Transformer, tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """How many bits a byte of `texts` costs under the model, windows of full context."""
    nats, num_bytes, window = 0.0, 0, model.config.max_position_embeddings
    for text in texts:
        ids = [BOS_ID, *tokenizer.encode(text).ids]
        num_bytes += len(text.encode("utf-8"))
        for start in range(0, len(ids) - 1, window):
            rows = torch.tensor([ids[start : start + window + 1]])
            nats += float(batch_loss(model, next_token_batch(rows), 1.0))
    return nats / math.log(2) / max(1, num_bytes)
