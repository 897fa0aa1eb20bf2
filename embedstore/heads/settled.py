"""Heads fitted again on a part of their items: what was chosen once is not chosen again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from embedstore.heads.auto import AutoHead
from embedstore.heads.base import Array, Data, Head
from embedstore.heads.ensemble import EnsembleHead, as_tuned, vote

__all__ = ["settled"]


def settled(head: Head) -> Head:
    """An unfitted head like `head`, which is fitted: with its penalty, or with its members and their votes.

    A head that chooses in closed form, or by stopping early, chooses again: that costs nothing more.
    """
    if isinstance(head, AutoHead) or (isinstance(head, EnsembleHead) and head.stack_ is None):
        return _Voters(head.members_, head.votes_)
    return type(head)(**{**head.get_params(), **as_tuned(head)})


class _Voters(Head):
    """Heads like `members`, whose shares of the vote are known."""

    kind = "voters"  # lives for one fit and is never saved

    def __init__(self, members: Mapping[str, Head], votes: Mapping[str, float]) -> None:
        self.members = members
        self.votes = votes

    def _fit(self, train: Data, validation: Data) -> None:
        self.members_ = {}
        for name, member in self.members.items():
            mine, held_out = (data.only(list(member.dims_)) for data in (train, validation))
            self.members_[name] = settled(member).fit_data(mine, held_out, self.classes_)

    def _logits(self, data: Data) -> Array:
        log_p = {name: member.log_proba(data.only(list(member.dims_))) for name, member in self.members_.items()}
        return cast(Array, next(iter(log_p.values()))) if len(log_p) == 1 else vote(log_p, self.votes)
