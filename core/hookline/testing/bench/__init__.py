"""How fast our kernels are on this machine, compared with other implementations: `hookline bench`.

`cases` lists every op with its shapes, peers and exact answer; `measure` times the cases in turns and measures the machine's
ceilings; `baseline` compares two measurements; `update` takes the same training step with and without logits in memory.
"""

from __future__ import annotations
