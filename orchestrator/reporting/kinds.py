"""The newest of many jobs by an index that does not have them in their order.

Jobs that agree in the first columns of an index are of one kind, and of each kind the index has
them by number. There are few kinds, however many jobs there are, and one step down the index leads
from each to the next; so the newest jobs of some kinds are found without reading the others.
"""

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from orchestrator.job_queue.job_filter import any_of, one_by_one
from orchestrator.store.tables import jobs

Condition = Callable[[sa.FromClause], sa.ColumnElement[bool]]
"""A condition on the table of jobs, or on an alias of it."""

_THIS, _OTHER, _ONE, _EACH = (jobs.alias(name) for name in ("this", "other", "one", "each"))


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kinds of jobs that an index tells apart.

    Args:
        columns: its first ones, behind which it has the number.
    """

    columns: tuple[str, ...]

    def newest(
        self, leads: tuple[str, ...], among: Condition, rest: Condition, size: int
    ) -> sa.Select[int]:
        """Numbers of the newest jobs, newest first.

        Args:
            leads: what the first column may be, where that is to be looked for first of all.
            among: which kinds, as a condition on their columns.
            rest: what else must hold for a job.
            size: so many.
        """
        found = self._found(leads, among, rest, size)
        # as many as are wanted have this number or a later one; so no kind is read further down
        least = sa.func.coalesce(sa.select(sa.func.max(found.c.nth)).scalar_subquery(), 0)
        return (
            sa.select(jobs.c.id)
            .select_from(found.join(jobs, self._alike(jobs, found, len(self.columns))))
            .where(jobs.c.id >= least, rest(jobs))
            # not by the number alone, lest PostgreSQL look through all jobs in that order
            .order_by((jobs.c.id + 0).desc())
            .limit(size)
        )

    def _found(
        self, leads: tuple[str, ...], among: Condition, rest: Condition, size: int
    ) -> sa.CTE:
        """The kinds, each with the number of the last of its jobs that may be wanted."""
        seen = self._seen(leads)
        nth = (
            sa.select(_EACH.c.id)
            .where(self._alike(_EACH, _ONE, len(self.columns)), rest(_EACH))
            .order_by(_EACH.c.id.desc())
            .offset(size - 1)
            .limit(1)
        )
        columns = [_ONE.c[name] for name in self.columns]
        return (
            sa.select(*columns, nth.scalar_subquery().label("nth"))
            .select_from(seen.join(_ONE, _ONE.c.id == seen.c.id))
            .where(one_by_one(among(_ONE)))
            .cte("found")
        )

    def _seen(self, leads: tuple[str, ...]) -> sa.CTE:
        """The newest job of each kind."""
        if leads:
            found = self._leads(leads)
            last = self._last(1, _OTHER.c[self.columns[0]] == found.c.lead)
            start = sa.select(last.label("id")).select_from(found)
        else:
            start = sa.select(self._last(0, _OTHER.c[self.columns[0]].is_not(None)).label("id"))
        seen = start.cte("seen", recursive=True)
        # the nearest that there is: a kind that differs in the last column only, or in more
        steps = [self._before(level) for level in range(1 if leads else 0, len(self.columns))]
        following = sa.select(sa.func.coalesce(*reversed(steps), sa.null()))
        return seen.union_all(following.select_from(seen.join(_THIS, _THIS.c.id == seen.c.id)))

    def _leads(self, wanted: tuple[str, ...]) -> sa.CTE:
        """The values of the first column that are asked for."""
        if not any("*" in value for value in wanted):
            named = sa.values(sa.column("lead", sa.Text), name="named")
            # one that is given twice would double its jobs
            return named.data([(value,) for value in dict.fromkeys(wanted)]).cte("leads")
        column = jobs.c[self.columns[0]]
        leads = sa.select(sa.func.max(column).label("lead")).cte("each_lead", recursive=True)
        before = sa.select(sa.func.max(column)).where(column < leads.c.lead).scalar_subquery()
        leads = leads.union_all(sa.select(before).where(leads.c.lead.is_not(None)))
        return sa.select(leads.c.lead).where(any_of(leads.c.lead, wanted)).cte("leads")

    def _before(self, level: int) -> sa.ScalarSelect[int | None]:
        """The newest of the last kind before this one that differs in this column first."""
        name = self.columns[level]
        alike = self._alike(_OTHER, _THIS, level)
        return self._last(level, sa.and_(alike, _OTHER.c[name] < _THIS.c[name]))

    def _last(self, level: int, where: sa.ColumnElement[bool]) -> sa.ScalarSelect[int | None]:
        """The last job in the index, where the columns before this one are fixed."""
        order = [_OTHER.c[name].desc() for name in (*self.columns[level:], "id")]
        return sa.select(_OTHER.c.id).where(where).order_by(*order).limit(1).scalar_subquery()

    def _alike(
        self, one: sa.FromClause, other: sa.FromClause, count: int
    ) -> sa.ColumnElement[bool]:
        """Whether two jobs agree in so many of the columns."""
        return sa.and_(sa.true(), *(one.c[name] == other.c[name] for name in self.columns[:count]))


BATCH = Kinds(("batch", "state", "reason"))
PLACE = Kinds(("state", "bucket", "region"))
CODE = Kinds(("code",))
