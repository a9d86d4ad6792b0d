"""How fast our kernels are on this machine, beside what others would use: `hookline bench`.

`cases` lists every op with its shapes, peers and exact answer; `measure` times them in turns and finds the machine's own
ceilings; `baseline` compares two measurements; `update` takes the same training step with and without logits in memory.
"""

from __future__ import annotations
