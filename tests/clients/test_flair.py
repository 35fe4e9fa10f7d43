"""flair's SequenceTagger: packed rows of words and a CRF above; saved and loaded as a whole."""

from __future__ import annotations

import contextlib

import pytest

torch = pytest.importorskip("torch", reason="needs the clients: pip install --group clients")
flair = pytest.importorskip("flair", reason="needs the clients: pip install --group clients")

import fusedrnn.torch as ft  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
TEXTS = ["George went to Paris", "Paris is a town", "Mary met George in Rome yesterday evening", "Rome", "towns sleep"]
PLACES = {"Paris", "Rome"}


def sentences():
    from flair.data import Sentence

    made = []
    for text in TEXTS:
        sentence = Sentence(text)
        for token in sentence:
            if token.text in PLACES:
                sentence[token.idx - 1 : token.idx].add_label("ner", "LOC")
        made.append(sentence)
    return sorted(made, key=len, reverse=True)


def test_tagger(twice):
    from flair.data import Dictionary
    from flair.embeddings import OneHotEmbeddings
    from flair.models import SequenceTagger

    flair.device = torch.device("cpu")

    def run(accelerated, folder):
        words, tags = Dictionary(), Dictionary(add_unk=False)
        for text in TEXTS:
            for word in text.split():
                words.add_item(word)
        for tag in ("O", "S-LOC", "B-LOC", "E-LOC", "I-LOC"):
            tags.add_item(tag)
        tagger = SequenceTagger(
            OneHotEmbeddings(words, embedding_length=8),
            tags,
            "ner",
            hidden_size=12,
            rnn_layers=2,
            use_crf=True,
            dropout=0.1,
        )
        if accelerated:
            assert ft.accelerate(tagger).swapped == {"rnn": "LSTM"}
        optimizer, losses = torch.optim.SGD(tagger.parameters(), 0.1), []
        tagger.train()
        for _ in range(10):
            optimizer.zero_grad()
            loss, count = tagger.forward_loss(sentences())
            (loss / count).backward()
            optimizer.step()
            losses.append(loss.detach() / count)
        tagger.save(folder / "tagger.pt")
        with ft.accelerating() if accelerated else contextlib.nullcontext():
            loaded = SequenceTagger.load(folder / "tagger.pt")
        assert isinstance(loaded.rnn, ft.LSTM) == accelerated
        found = []
        for model in (tagger, loaded):
            model.eval()
            with torch.no_grad():
                found.append(model(*model._prepare_tensors(sentences()))[0])
        assert torch.equal(*found)
        return {"losses": torch.stack(losses), "scores": found[0]}

    assert twice(run) >= 12 * 4
