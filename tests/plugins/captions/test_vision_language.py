from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lesionforge.core.batch import Batch
from lesionforge.core.context import Context
from lesionforge.core.errors import CheckpointError
from lesionforge.plugins.captions.plugin import DermPrompt

WORDS = ["<pad>", "<s>", "</s>", "<image>", "<unk>", "lesion", "dark", "brown", "on", "skin", "round", "and", "large"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A Llava of random weights, strong enough that its words depend on the image."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, additional_special_tokens=["<image>"], **names
    )
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "initializer_range": 1.0}
    vision = transformers.CLIPVisionConfig(num_hidden_layers=1, image_size=16, patch_size=8, **tiny)
    text = transformers.LlamaConfig(vocab_size=len(WORDS), num_hidden_layers=1, pad_token_id=0, **tiny)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=3, vision_feature_layer=-1
    )
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = transformers.LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.chat_template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %}"
    )
    processor.save_pretrained(folder)
    return folder


def stage(checkpoint: Path | str, **values) -> DermPrompt:
    annotator = DermPrompt(DermPrompt.Config(backend="transformers", checkpoint=str(checkpoint), prefix="", **values))
    annotator.setup(Context(torch.device("cpu"), name="derm-prompt"))
    return annotator


def test_each_image_gets_the_model_s_own_words(checkpoint):
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).round()
    batch = Batch.blank(4).with_columns(images=images)
    annotator = stage(checkpoint)
    prompts = annotator.annotate(batch).prompts
    assert prompts is not None and len(set(prompts)) > 1
    assert all(set(prompt.removesuffix(".").split()) <= set(WORDS) for prompt in prompts)
    assert annotator.annotate(batch.select([2])).prompts == (prompts[2],)
    assert annotator.annotate(batch).prompts == prompts


def test_each_class_has_an_instruction_of_its_own_where_icd_11_terms_are_asked_for(checkpoint, monkeypatch):
    annotator = stage(checkpoint, terms="icd-11")
    asked, worded = [], annotator._captioner._worded
    monkeypatch.setattr(annotator._captioner, "_worded", lambda text: asked.append(text) or worded(text))
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).round()
    batch = Batch.blank(3).with_columns(images=images, labels=["nevus", None, "nevus"])
    together = annotator.annotate(batch)
    assert len(asked) == 2 and "melanocytic naevus" in asked[0] and "a skin lesion" in asked[1]
    assert [note.get("icd_11") for note in together.provenance] == ["2F20", None, "2F20"]
    assert annotator.annotate(batch.select([2])).prompts == together.prompts[2:]


def test_what_the_model_says_is_cut_to_the_budget(checkpoint):
    batch = Batch.blank(1).with_columns(images=torch.zeros(1, 3, 16, 16))
    whole = stage(checkpoint).annotate(batch).prompts[0].split()
    cut = stage(checkpoint, max_tokens=12).annotate(batch)
    words = cut.prompts[0].removesuffix(".").split()
    assert len(words) <= 10 and words == [word.removesuffix(".") for word in whole[: len(words)]]
    assert cut.provenance[0] == {"prompt_shortened": True}


def test_only_safetensors_are_loaded(checkpoint, tmp_path):
    for file in checkpoint.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is no usable vision-language model"):
        stage(tmp_path)


def test_folders_of_another_kind_are_said_in_one_line(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(CheckpointError, match="is no usable vision-language model") as error:
            stage(folder)
        assert "\n" not in str(error.value)
