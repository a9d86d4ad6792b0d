"""What `compare` found at equal steps, tokens and seconds, as one table: each configuration against the baseline."""

from __future__ import annotations

from typing import Any

from hookline import Column, Table

__all__ = ["against"]

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
