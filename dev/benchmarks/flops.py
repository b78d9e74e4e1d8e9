"""Matrix-product operations per image, by formula.

A multiplication and an addition count as two operations, and only matrix products and
convolutions are counted. Formulas are used rather than a counter because torch's
counter does not see every fused attention kernel, and because the official count is
the fixed yardstick: work that a faster implementation skips must not lower it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from .dims import MIMDims


@dataclass(frozen=True)
class Term:
    """One part of a training step.

    Attributes:
        name: What is computed.
        forward: Operations of its forward pass.
        backward: Operations of its backward pass; 0 for a frozen part.
    """

    name: str
    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Operations of both passes."""
        return self.forward + self.backward


def total(terms: Iterable[Term]) -> float:
    """Add up the operations of all terms."""
    return sum(term.total for term in terms)


def trained(name: str, forward: float) -> Term:
    """A part whose inputs and weights both get gradients: backward is twice forward."""
    return Term(name, forward, 2 * forward)


def frozen(name: str, forward: float) -> Term:
    """A part without gradients, such as a teacher."""
    return Term(name, forward, 0.0)


def linear(tokens: float, in_dims: int, out_dims: int) -> float:
    """Operations of a linear layer, forward."""
    return 2 * tokens * in_dims * out_dims


def attention(queries: int, keys: int, dims: int) -> float:
    """Operations of the two products around the softmax, all heads, forward."""
    return 4 * queries * keys * dims


def block(tokens: int, dims: int, hidden: int) -> float:
    """Operations of a transformer block, forward."""
    return tail_block(tokens, tokens, dims, hidden)


def tail_block(tokens: int, tail: int, dims: int, hidden: int) -> float:
    """Operations of a block that computes its last tokens only, forward.

    Args:
        tokens: Tokens that provide keys and values.
        tail: Tokens with a query, an output projection and an MLP.
        dims: Token width.
        hidden: Hidden width of the MLP.
    """
    return (
        linear(tail, dims, dims)  # queries
        + linear(tokens, dims, 2 * dims)  # keys and values
        + attention(tail, tokens, dims)
        + linear(tail, dims, dims)
        + 2 * linear(tail, dims, hidden)
    )


def encoder_terms(dims: MIMDims, lean: bool = False) -> list[Term]:
    """Terms of a masked encoder.

    Args:
        dims: Sizes of the model.
        lean: Whether only the visible patches are embedded.
    """
    embedded = dims.visible if lean else dims.patches
    embed = linear(embedded, dims.patch_values, dims.width)
    blocks = dims.depth * block(dims.visible + 1, dims.width, dims.hidden)
    # Images need no gradient, so the embedding's backward is its weight's alone.
    return [Term("patch embedding", embed, embed), trained("encoder blocks", blocks)]


def decoder_terms(dims: MIMDims, lean: bool = False) -> list[Term]:
    """Terms of the self-attention decoders, all levels together.

    Args:
        dims: Sizes of the model.
        lean: Whether the last block and the prediction are computed for the removed
            patches only.
    """
    tokens, width = dims.patches + 1, dims.decoder_width
    tail = dims.patches - dims.visible if lean else tokens
    embed = linear(dims.visible + 1, dims.width, width)
    blocks = (dims.decoder_depth - 1) * block(tokens, width, dims.decoder_hidden)
    blocks += tail_block(tokens, tail, width, dims.decoder_hidden)
    predict = linear(tail, width, dims.target_dims)
    return [
        trained("decoder embedding", dims.levels * embed),
        trained("decoder blocks", dims.levels * blocks),
        trained("prediction", dims.levels * predict),
    ]


def distillation_terms(dims: MIMDims, lean: bool = False) -> list[Term]:
    """Terms of attention distillation (MAE-Lite, D2-MAE); none without a teacher.

    Args:
        dims: Sizes of the model.
        lean: False for the official computation, which runs all of the teacher and
            takes the student's logits from its attention; True for a teacher that ends
            at the deepest logits, and a student that computes its own once more.
    """
    teacher = dims.teacher
    if teacher is None:
        return []
    tokens = dims.visible + 1
    embed = linear(
        teacher.visible if lean else teacher.patches,
        teacher.patch_values,
        teacher.width,
    )
    full = block(tokens, teacher.width, teacher.hidden)
    forward = embed + teacher.depth * full
    if lean:
        forward = embed + max(dims.teacher_reads) * full
        forward += len(dims.teacher_reads) * logits(tokens, teacher.width, parts=2)
    own = 0.0
    for index in dims.student_reads:
        if lean or index == dims.depth:
            own += logits(tokens, dims.width, parts=2 if lean else 3)
    adapters = len(dims.student_reads) * 2 * tokens**2 * dims.heads * teacher.heads
    return [
        frozen("teacher", forward),
        trained("student logits", own),
        trained("adapters", adapters),
    ]


def logits(tokens: int, dims: int, parts: int) -> float:
    """Operations of attention logits with their projections, forward.

    Args:
        tokens: Tokens that attend to each other.
        dims: Token width.
        parts: How many of queries, keys and values are computed.
    """
    return linear(tokens, dims, parts * dims) + 2 * tokens**2 * dims


def mim_terms(dims: MIMDims, lean: bool = False) -> list[Term]:
    """Terms of one training step of MAE or DeepMIM on pixels, for one image.

    MAE has one level. `DeepMIM <https://arxiv.org/abs/2303.08817>`_ has one decoder
    for each supervised level. Either may have a teacher.

    Args:
        dims: Sizes of the model.
        lean: False for the official computation, the yardstick; True for what is
            left when neither removed patches are embedded nor visible ones
            predicted.
    """
    terms = encoder_terms(dims, lean) + decoder_terms(dims, lean)
    return terms + distillation_terms(dims, lean)
