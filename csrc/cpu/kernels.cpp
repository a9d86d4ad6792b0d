// Compiled once per instruction set, with HOOKLINE_ISA naming it. Everything lives in a namespace of that name and uses no
// template of the standard library, so that the linker never mixes code of two instruction sets.
#include "draw.h"
#include "gae.h"
#include "kernels.h"
#include "kl.h"
#include "product.h"
#include "token_stats.h"

#define NAME_OF(x) #x
#define STRING_OF(x) NAME_OF(x)
#define JOIN(a, b) a##b
#define TABLE_OF(x) JOIN(kernels_, x)

namespace hookline {

extern const Kernels TABLE_OF(HOOKLINE_ISA) = {
    STRING_OF(HOOKLINE_ISA),
    HOOKLINE_ISA::W,
    HOOKLINE_ISA::token_stats,
    HOOKLINE_ISA::update,
    HOOKLINE_ISA::finish,
    HOOKLINE_ISA::token_stats_backward,
    HOOKLINE_ISA::gae,
    HOOKLINE_ISA::kl_estimate,
    HOOKLINE_ISA::kl_estimate_backward,
    HOOKLINE_ISA::kl_divergence,
    HOOKLINE_ISA::kl_update,
    HOOKLINE_ISA::kl_finish,
    HOOKLINE_ISA::kl_backward,
    HOOKLINE_ISA::draw,
    HOOKLINE_ISA::kept_by_draw,
#ifdef __AVX512F__
    HOOKLINE_ISA::product,
#else
    nullptr,
#endif
#ifdef __AVX512BF16__
    true,
#else
    false,
#endif
};

}  // namespace hookline
