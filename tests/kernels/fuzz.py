"""The native module under AddressSanitizer and UndefinedBehaviorSanitizer, fed random shapes, strides, dtypes and values.

    python tests/kernels/fuzz.py [CALLS] [SEED]

Builds a sanitised module beside the usual one and calls it without torch, straight from numpy buffers: every array is
its own allocation, so one element too far is a report and a non-zero exit. Values are not checked here; the tests do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import machinery, util
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "build" / "sanitized"
F32, BF16, F16, I64, U8, F64 = range(6)
WIDTHS = {F32: np.float32, BF16: np.uint16, F16: np.float16, I64: np.int64, U8: np.uint8, F64: np.float64}
WEIRD = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, -3e38, 88, -104], np.float32)


def describe(array, code):
    """(address, shape, strides in elements, dtype), as a tensor crosses into C++."""
    return array.ctypes.data, array.shape, tuple(s // array.itemsize for s in array.strides), code


class Fuzzer:
    def __init__(self, native, seed):
        self.native, self.rng = native, np.random.default_rng(seed)
        self.alive = []  # what the current call may touch

    def integer(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def array(self, shape, code):
        out = np.empty(shape, WIDTHS[code])
        self.alive.append(out)
        return out

    def floats(self, shape, code):
        """Numbers of all sizes, a few of them strange, in an array that ends where its allocation ends."""
        values = (self.rng.standard_normal(shape) * 10.0 ** self.integer(-3, 3)).astype(np.float32)
        strange = self.rng.random(shape) < 0.02
        values[strange] = self.rng.choice(WEIRD, int(strange.sum()))
        out = self.array(shape, code)
        with np.errstate(over="ignore"):
            out[...] = (values.view(np.uint32) >> 16).astype(np.uint16) if code == BF16 else values
        return out

    def rows(self, outer, inner, width, code):
        """[outer, inner, width], in part with rows further apart than they are wide."""
        gap = self.integer(0, 2) * self.integer(0, 5)
        whole = self.floats((outer, inner, width + gap), code)
        # Keep the last row at the very end of the allocation.
        return whole[:, :, gap:]

    def tokens(self, count, vocabulary):
        ids = self.rng.integers(0, vocabulary, count)
        ids[self.rng.random(count) < 0.1] = -100
        if self.rng.random() < 0.1 and count:
            ids[self.integer(0, count - 1)] = self.integer(-vocabulary, 2 * vocabulary)
        kept = offsets = None
        if self.rng.random() < 0.4:
            chosen = [
                np.sort(self.rng.permutation(vocabulary)[: self.integer(1, min(vocabulary, 700))]) for _ in range(count)
            ]
            kept = np.concatenate(chosen) if chosen else np.empty(0, np.int64)
            offsets = np.cumsum([0, *map(len, chosen)]).astype(np.int64)
            if self.rng.random() < 0.1:
                offsets[self.integer(0, count)] += self.integer(-5, 5)
        self.alive += [ids, kept, offsets]
        return [None if a is None else describe(a.astype(np.int64, copy=False), I64) for a in (ids, kept, offsets)]

    def call(self):
        self.alive.clear()
        sets = self.native.instruction_sets()
        self.native.use(sets[self.integer(0, len(sets) - 1)])
        getattr(self, self.rng.choice(["token_stats", "tiles", "gae", "estimates", "divergence", "draws", "product"]))()

    def token_stats(self):
        outer, inner, vocabulary = self.integer(0, 3), self.integer(1, 4), self.integer(1, 1500)
        code, count, threads = self.integer(F32, F16), outer * inner, self.integer(1, 3)
        logits, stats = self.rows(outer, inner, vocabulary, code), self.array((8, count), F32)
        stats[...] = 0
        tokens = self.tokens(count, vocabulary)
        options = (10.0 ** self.integer(-2, 2), self.rng.choice([0.0, 5.0]), self.integer(1, 63))
        x, out = describe(logits, code), describe(stats, F32)
        if self.native.token_stats(x, *tokens, *options, out, threads):
            upstream = describe(self.floats((8, count), F32), F32)
            grad = x if self.rng.random() < 0.5 else describe(self.rows(outer, inner, vocabulary, code), code)
            self.native.token_stats_backward(upstream, out, x, *tokens, *options, 0, grad, threads)

    def tiles(self):
        count, vocabulary = self.integer(1, 5), self.integer(1, 1500)
        tokens = self.tokens(count, vocabulary)
        if not self.native.ids_are_fine(*tokens, count, vocabulary):
            return
        options = (1.0, self.rng.choice([0.0, 5.0]), self.integer(1, 63))
        state, stats = self.array((7, count), F32), self.array((8, count), F32)
        state[...], stats[...] = 0, 0
        state[0], state[6] = np.finfo(np.float32).min, -np.inf
        width = self.integer(1, vocabulary)
        for first in range(0, vocabulary, width):
            tile = self.rows(1, count, min(width, vocabulary - first), F32)
            self.native.update(describe(tile, F32), *tokens, *options, first, describe(state, F32), 2)
            self.native.token_stats_backward(
                describe(self.floats((8, count), F32), F32),
                describe(self.floats((8, count), F32), F32),
                describe(tile, F32),
                *tokens,
                *options,
                first,
                describe(tile, F32),
                2,
            )
        self.native.finish(describe(state, F32), tokens[0], *options, describe(stats, F32))

    def gae(self):
        outer, inner, steps, code = self.integer(0, 2), self.integer(1, 3), self.integer(0, 100), self.integer(F32, F16)
        if self.rng.random() < 0.01:  # results that leave the caches
            outer, inner, steps = 1, 2100, self.integer(1000, 1030)
        offsets, count = None, outer * inner
        if steps < 1000 and self.rng.random() < 0.4:
            outer, inner, count = 1, 1, self.integer(0, 4)
            cuts = np.sort(self.rng.integers(0, steps + 1, max(count - 1, 0)))
            cuts = np.array([0, *cuts, steps] if count else [0], np.int64)
            if self.rng.random() < 0.2:
                cuts[self.integer(0, count)] += self.integer(-9, 9)
            self.alive.append(cuts)
            offsets = describe(cuts, I64)
        mask = None
        if self.rng.random() < 0.7:
            values = self.array((outer, inner, steps), U8)
            values[...] = self.rng.random(values.shape) < self.rng.choice([0, 0.5, 0.98, 1])
            mask = describe(values, U8)
        bootstrap = describe(self.floats((count,), F32), F32) if self.rng.random() < 0.5 else None
        results = describe(self.array((2, outer, inner, steps), F32), F32)
        r, v = (describe(self.rows(outer, inner, steps, code), code) for _ in range(2))
        self.native.gae(r, v, mask, bootstrap, offsets, 0.99, 0.95, results, self.integer(1, 3))

    def estimates(self):
        n, code, which = self.integer(0, 200), self.integer(F32, F16), self.integer(1, 7)
        p, q = (describe(self.floats((n,), code), code) for _ in range(2))
        several = (which.bit_count(), n)
        self.native.kl_estimate(p, q, which, describe(self.array(several, F32), F32), 2)
        up = describe(self.floats(several, F32), F32)
        self.native.kl_estimate_backward(up, p, q, which, describe(self.array((n,), F32), F32), 2)

    def divergence(self):
        outer, inner, vocabulary = self.integer(0, 2), self.integer(1, 3), self.integer(1, 700)
        code, count = self.integer(F32, F16), outer * inner
        p, q = (describe(self.rows(outer, inner, vocabulary, code), code) for _ in range(2))
        stats = describe(self.array((5, count), F32), F32)
        self.native.kl_divergence(p, q, 0.7, stats, 2)
        grads = [describe(self.rows(outer, inner, vocabulary, code), code), q, None]
        grad, ref_grad = self.rng.permutation(3)[:2]
        up = describe(self.floats((count,), F32), F32)
        self.native.kl_backward(up, stats, p, q, 0.7, grads[grad], grads[ref_grad], 2)

    def draws(self):
        outer, inner, vocabulary = self.integer(1, 3), self.integer(1, 3), self.integer(1, 1500)
        code, count, threads = self.integer(F32, F16), outer * inner, self.integer(1, 3)
        logits = describe(self.rows(outer, inner, vocabulary, code), code)
        uniform = self.array((count,), F64)
        uniform[...] = self.rng.random(count) - (self.rng.random(count) < 0.1)
        ids, logprobs = self.array((count,), I64), self.array((count,), F32)
        cuts, counts = self.array((count, 2), F32), self.array((count, 2), I64)
        scratch = describe(self.array((threads * self.native.draw_scratch(vocabulary),), F32), F32)
        options = [10.0 ** self.integer(-2, 2), self.integer(0, 40), float(self.rng.choice([0.3, 1.0])), float(self.rng.choice([0, 0.2]))]
        cut = (describe(cuts, F32), describe(counts, I64)) if self.rng.random() < 0.7 else (None, None)
        out = (describe(ids, I64), describe(logprobs, F32))
        self.native.draw(logits, describe(uniform, F64), *options, *out, *cut, scratch, threads)
        assert ((ids >= 0) & (ids < vocabulary)).all()
        if cut[0]:
            offsets = np.array([0, *counts[:, 0].cumsum()], np.int64)
            kept = self.array((int(offsets[-1]),), I64)
            kept[...] = -1
            self.native.kept_by_draw(logits, options[0], *cut, describe(offsets, I64), describe(kept, I64), threads)
            assert ((kept >= 0) & (kept < vocabulary)).all()

    def product(self):
        code = self.integer(F32, BF16)
        if not self.native.has_product(code):
            return
        m, n, k = self.integer(0, 300), self.integer(0, 150), self.integer(1, 600)
        a_transposed, b_transposed, rounded = (bool(self.rng.random() < 0.5) for _ in range(3))
        k += k % 2 if b_transposed and code == BF16 else 0
        padded = k + k % 2 if code == BF16 else k
        a = self.rows(1, *((k, m) if a_transposed else (m, padded)), code)[0]
        b = self.rows(1, *((n, k) if b_transposed else (k, n)), code)[0]
        out, add = (BF16, False) if rounded else (F32, bool(self.rng.random() < 0.5))
        result = describe(self.rows(1, m, n, out)[0], out)
        self.native.product(
            describe(a, code), a_transposed, describe(b, code), b_transposed, result, add, self.integer(1, 3)
        )


def load():
    (path,) = (TARGET / "hookline").glob("_native.*.so")
    loader = machinery.ExtensionFileLoader("_native", str(path))
    module = util.module_from_spec(util.spec_from_loader("_native", loader))
    loader.exec_module(module)
    return module


def main(calls="5000", seed="0"):
    if "HOOKLINE_FUZZING" not in os.environ:
        environment = {**os.environ, "HOOKLINE_SANITIZE": "1", "HOOKLINE_KERNELS": "require"}
        build = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(TARGET)]
        subprocess.run(build, cwd=ROOT, env=environment, check=True)
        compiler = os.environ.get("CXX", "g++")
        libraries = [
            subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
            for name in ("libasan.so", "libubsan.so")
        ]
        environment |= {
            "HOOKLINE_FUZZING": "1",
            "LD_PRELOAD": " ".join(libraries),
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        return subprocess.run([sys.executable, __file__, calls, seed], env=environment).returncode
    fuzzer = Fuzzer(load(), int(seed))
    refused = 0
    for _ in range(int(calls)):
        try:
            fuzzer.call()
        except ValueError:
            refused += 1
    print(
        f"{calls} calls, {refused} refused, no report; instruction sets: {', '.join(fuzzer.native.instruction_sets())}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
