"""What `compare` found at equal steps, tokens and seconds, as one table: each configuration against the baseline."""

from __future__ import annotations

from typing import Any

from hookline import Column, Table

__all__ = ["against", "moved"]

Json = dict[str, Any]


def against(found: Json) -> Table:
    """A row per configuration for each way to compare, the baseline's row first. The CSV file has all columns; pages show fewer."""
    higher = {"higher": "P(better)", "lower": "P(better)", None: "P(higher)"}[found["better"]]
    table = Table(
        "against",
        (
            Column("at", ""),
            Column("amount", form="g"),
            Column("configuration"),
            Column("baseline"),
            Column("paired"),
            Column("seeds"),
            Column("value", "IQM"),
            Column("interval", "95 % interval", ends=True),
            Column("difference", form="+.4g"),
            Column("difference_interval", "95 % interval", ends=True),
            Column("d", form="+.2f"),
            Column("chance", higher, form=".2f"),
            Column("chance_interval", "95 % interval", form=".2f", ends=True),
            Column("p", form=".2g"),
            Column("p_holm", "p (Holm)" if len(found["configurations"]) > 2 else "p", form=".2g"),
            Column("shown", ""),
            Column("more_seeds", "more seeds"),
        ),
        caption=f"{found['metric']} in phase {found['phase']}, against {found['baseline']}",
    )
    seeds = {c["label"]: len(c["seeds"]) for c in found["configurations"]}
    for way, name, amount in (("equal", "equal {}", "at"), ("area", "mean over {}", "to")):
        for axis, entry in found[way].items():
            by_label = {c["label"]: c for c in entry["against"]}
            for label in sorted(entry["values"], key=lambda label: label != found["baseline"]):
                value, c = entry["values"][label], by_label.get(label)
                row: Json = {
                    "at": name.format(axis),
                    "amount": entry[amount],
                    "configuration": label,
                    "seeds": seeds[label],
                    "value": value["value"],
                    "interval": value,
                }
                if c:
                    row |= {
                        "baseline": c["baseline"],
                        "paired": c["paired"],
                        "seeds": len(c["seeds"]) or seeds[label],
                        "difference": c["difference"]["value"],
                        "difference_interval": c["difference"],
                        "d": c["effect"],
                        "chance": c["chance"]["value"],
                        "chance_interval": c["chance"],
                        "p": c["p"],
                        "p_holm": c["p_holm"],
                        "shown": "shown" if c["shown"] else "not shown",
                        "more_seeds": c["more_seeds"],
                    }
                table.add(**row)
    return table


def moved(found: Json) -> Table:
    """What each lever moved: a row for each lever and figure."""
    table = Table(
        "moved",
        (
            Column("lever"),
            Column("phase"),
            Column("figure"),
            Column("without", f"IQM, {found['baseline']}", form=".4g"),
            Column("difference", form="+.4g"),
            Column("difference_interval", "95 % interval", ends=True),
            Column("p_holm", "p (Holm)", form=".2g"),
            Column("moved", ""),
        ),
        caption="What each lever moved",
    )
    for lever in [c["label"] for c in found["configurations"] if c["label"] != found["baseline"]]:
        for figure in found["moved"]:
            c = next(one for one in figure["against"] if one["label"] == lever)
            table.add(
                lever=lever,
                phase=figure["phase"],
                figure=figure["metric"],
                without=figure["value"]["value"],
                difference=c["difference"]["value"],
                difference_interval=c["difference"],
                p_holm=c["p_holm"],
                moved=_moved(c["difference"]["value"], figure["better"]) if c["shown"] else "not shown",
            )
    return table


def _moved(difference: float, better: str | None) -> str:
    if better is None:
        return "higher" if difference > 0 else "lower"
    return "better" if (difference > 0) == (better == "higher") else "worse"
