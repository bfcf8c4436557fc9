// What a kernel's source finds on the CPU: lanes one after another, without barriers or exchange between them.
#pragma once
#include <cstddef>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __launch_bounds__(lanes)
#define __builtin_amdgcn_workitem_id_x() (fake::lane)
#define __builtin_amdgcn_workgroup_id_x() (fake::group)

namespace fake {
inline unsigned lane, group;

template <class... A>
unsigned sizes(void (*)(A...), unsigned* out) {
    const unsigned all[] = {sizeof(A)..., 0};
    for (size_t i = 0; i < sizeof...(A); i++) out[i] = all[i];
    return sizeof...(A);
}

template <class... A, size_t... I>
void run(void (*kernel)(A...), const unsigned* grid, unsigned block, void** arguments, std::index_sequence<I...>) {
    for (group = 0; group < grid[0] * grid[1] * grid[2]; group++)
        for (lane = 0; lane < block; lane++) kernel(*(A*)arguments[I]...);
}

template <class... A>
void run(void (*kernel)(A...), const unsigned* grid, unsigned block, void** arguments) {
    run(kernel, grid, block, arguments, std::index_sequence_for<A...>());
}
}  // namespace fake

#define FAKE_EXPORT(name)                                                                                 \
    extern "C" unsigned fake_sizes_##name(unsigned* out) { return fake::sizes(name, out); }               \
    extern "C" void fake_run_##name(const unsigned* grid, unsigned block, void** arguments, unsigned) {   \
        fake::run(name, grid, block, arguments);                                                          \
    }
