"""A dataset comes back as it was sealed, or says what is wrong with it."""

from __future__ import annotations

import pytest

from ownweights.core.errors import ArtefactError, ArtefactMissing, UsageError
from ownweights.core.project import Project
from ownweights.dataset import Dataset, list_datasets, load_dataset
from tests.dataset.records import built, many, record


@pytest.fixture
def dataset(project: Project) -> Dataset:
    return built(project, many(40))


def test_load_dataset_by_a_beginning_of_its_id(project: Project, dataset: Dataset) -> None:
    found = load_dataset(project, dataset.id[:5])
    assert (found.id, found.workload, found.split_by) == (dataset.id, "w", "prompt")
    assert found.examples("train") == dataset.examples("train")


def test_load_dataset_refuses_an_unknown_id(project: Project, dataset: Dataset) -> None:
    with pytest.raises(ArtefactMissing, match="dataset 'nope' does not exist") as caught:
        load_dataset(project, "nope")
    assert caught.value.hint == f"there are: {dataset.id}"


def test_load_dataset_verify_finds_a_changed_byte(project: Project, dataset: Dataset) -> None:
    path = dataset.path / "train.jsonl"
    path.write_bytes(path.read_bytes().replace(b"reply", b"reply!", 1))
    with pytest.raises(ArtefactError, match=r"file 'train.jsonl' is not what its card says"):
        load_dataset(project, dataset.id, verify=True)


def test_load_dataset_refuses_a_lost_file(project: Project, dataset: Dataset) -> None:
    (dataset.path / "test.jsonl").unlink()
    with pytest.raises(ArtefactError, match=r"lacks its file 'test.jsonl'"):
        load_dataset(project, dataset.id)


@pytest.mark.parametrize("broken", [b"{\n", b'{"id": "x"}\n', b"[]\n", b"\xff\n"])
def test_examples_name_the_line_that_is_broken(dataset: Dataset, broken: bytes) -> None:
    path = dataset.path / "develop.jsonl"
    num_lines = path.read_bytes().count(b"\n")
    with path.open("ab") as file:
        file.write(broken)
    with pytest.raises(ArtefactError, match=rf"develop.jsonl:{num_lines + 1} is not an example"):
        dataset.examples("develop")


def test_examples_refuse_an_unknown_split(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="'dev' is not a split") as caught:
        dataset.examples("dev")
    assert caught.value.hint == "the splits are train, develop, certify, test"


def test_iter_examples_reads_one_at_a_time(dataset: Dataset) -> None:
    assert list(dataset.iter_examples("train")) == dataset.examples("train")


def test_removed_names_the_twin(project: Project) -> None:
    twins = [record("same thing", id=name) for name in "ab"]
    dataset = built(project, twins, fractions=(1, 0, 0, 0))
    ((one,), (kept,)) = dataset.removed(), dataset.examples("train")
    assert {one["id"], kept.id} == {"a", "b"}
    assert (one["like"], one["reason"], one["asks"]) == (kept.id, "repeat", "same thing")


def test_list_datasets_lists_all(project: Project, dataset: Dataset) -> None:
    other = built(project, many(41))
    assert {one.id for one in list_datasets(project)} == {dataset.id, other.id}


def test_list_datasets_of_an_empty_project(project: Project) -> None:
    assert list_datasets(project) == []
