"""Tiny multilingual CLIP models with Hugging Face's tokenizers and text towers, made on the spot."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from pairmill.workers.score.model import open_clip as clip

CONTEXT = 24
CAPTIONS = [
    f"{a} {b}"
    for a, bs in {
        "a red": ["fox in the snow", "house by the river", "boat on a lake", "train at night"],
        "ein roter": ["Fuchs im Schnee", "Zug bei Nacht", "Apfel auf dem Tisch", "Hut"],
        "un bateau": ["sur le lac", "dans le port", "près de la rivière", "la nuit"],
        "赤い": ["キツネと雪", "電車の夜景", "家と川", "船が湖に浮かぶ"],
        "أحمر": ["ثعلب في الثلج", "بيت عند النهر", "قارب في البحيرة", "قطار الليل"],
        "красная": ["лиса в снегу", "лодка на озере", "крыша дома", "машина"],
        "🦊": ["❄️ in winter", "🚂 bei Nacht", "🏠 et 🌊", "👨‍👩‍👧 im Schnee"],
    }.items()
    for b in bs
]


def save_tokenizer(folder: Path, *, start: bool = True) -> int:
    """A unigram tokenizer, as XLM-R's and SigLIP's are;
    gives its number of tokens. start: whether texts begin with a token of their own, as XLM-R's
    do and SigLIP's do not."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CAPTIONS * 10, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if start else "$A </s>",
        pair="<s> $A </s> $B </s>" if start else "$A $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>", cls_token="<s>", sep_token="</s>", model_max_length=CONTEXT,
    ).save_pretrained(folder)  # fmt: skip
    return tokenizer.get_vocab_size()


def hugging_face_towers(tokens: int) -> dict[str, Any]:
    """Configurations of text towers, of the kinds that open_clip knows."""
    ends = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "vocab_size": tokens}
    bert = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": CONTEXT + 2,
    } | ends  # fmt: skip
    return {
        "xlm-roberta": transformers.XLMRobertaConfig(**bert),
        "bert": transformers.BertConfig(**bert),
        "mt5": transformers.MT5Config(
            d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, **ends
        ),
        "m2m_100": transformers.M2M100Config(
            d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
            max_position_embeddings=CONTEXT + 2, **ends,
        ),
    }  # fmt: skip


POOLERS = {
    "xlm-roberta": "mean_pooler",
    "bert": "cls_pooler",
    "mt5": "mean_pooler",
    "m2m_100": "cls_pooler",
}


def save_model(folder: Path, kind: str) -> tuple[str, str]:
    """Configuration and checkpoint of a model with random weights, for ``load``. kind: siglip, or
    one of ``POOLERS``."""
    folder.mkdir(exist_ok=True)
    tokens = save_tokenizer(folder, start=kind != "siglip")
    text: dict[str, Any] = {"hf_tokenizer_name": str(folder), "context_length": CONTEXT}
    if kind == "siglip":
        text |= {
            "vocab_size": tokens, "width": 32, "heads": 2, "layers": 2, "no_causal_mask": True,
            "proj_bias": True, "pool_type": "last", "tokenizer_kwargs": {"clean": "canonicalize"},
        }  # fmt: skip
    else:
        hugging_face_towers(tokens)[kind].save_pretrained(folder)
        text |= {"hf_model_name": str(folder), "hf_pooler_type": POOLERS[kind]}
    configuration = {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16,
        },
        "text_cfg": text,
    }  # fmt: skip
    # open_clip knows models by their file's name alone
    file = folder / f"pairmill-{kind}-{abs(hash(str(folder)))}.json"
    file.write_text(json.dumps(configuration))
    clip.add_model_config(file)
    torch.manual_seed(7)
    model = clip.create_model(file.stem, pretrained_text=False)
    with torch.no_grad():
        # or all texts are nearly one to random towers
        for name, parameter in model.text.named_parameters():
            if parameter.ndim == 2 and "norm" not in name.lower():
                parameter.normal_(std=0.2)
    torch.save(model.state_dict(), folder / "weights.pt")
    return str(file), str(folder / "weights.pt")
