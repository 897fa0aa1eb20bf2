"""The options of `align`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

from dataclasses import dataclass

from embedstore._core.arguments import check_least, check_types, option
from embedstore.errors import UsageError

LOSSES = ("infonce", "siglip")
"""With which an alignment can be trained; see `embedstore.heads.solvers.contrastive`."""


@dataclass(frozen=True, kw_only=True)
class AlignOptions:
    """What `align` is asked besides a store; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    source: str = option("text", "One space, such as that of the texts.", flag="--from")
    target: str = option("image", "The other space.", flag="--to")
    name: str = option("aligned", "Name of the saved head; the spaces are called NAME.SPACE.")
    where: str | None = None
    loss: str | None = option(
        None, f"Train further with this loss, kept where it surely finds more: {' or '.join(LOSSES)}.", metavar="LOSS"
    )
    seed: int = option(0, "Of the split, the folds and the bootstrap.")

    def __post_init__(self) -> None:
        check_types(self)
        check_least(self, seed=0)
        if self.loss is not None and self.loss not in LOSSES:
            raise UsageError(f"loss must be {' or '.join(LOSSES)}. Got {self.loss!r} instead.")
        if self.source == self.target:
            raise UsageError(
                f"An alignment needs two spaces. Got {self.source!r} twice; choose another: --from SPACE --to SPACE."
            )
