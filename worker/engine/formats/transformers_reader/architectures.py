"""Which models of transformers are read: each was built, exported and compared (tests/engine/formats)."""

from typing import Final

#: ``model_type`` of config.json -> what the model takes.
ARCHITECTURES: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            "albert",
            "bert",
            "camembert",
            "distilbert",
            "electra",
            "mpnet",
            "roberta",
            "xlm-roberta",
        ),
        "text",
    ),
    **dict.fromkeys(
        (
            "beit",
            "convnext",
            "convnextv2",
            "deit",
            "dinov2",
            "efficientnet",
            "mobilenet_v1",
            "mobilenet_v2",
            "mobilevit",
            "poolformer",
            "regnet",
            "resnet",
            "segformer",
            "swin",
            "swinv2",
            "vit",
        ),
        "image",
    ),
}

#: What may be on top of them, or nothing: the end of the name in ``architectures`` of config.json.
HEADS: Final = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMaskedLM",
    "ForImageClassification",
    "ForImageClassificationWithTeacher",
    "ForSemanticSegmentation",
)
