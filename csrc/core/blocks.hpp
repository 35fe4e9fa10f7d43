// Memory of results. A training step allocates the same large arrays again and again; handed back to the system
// in between, they cost a page fault for every 4 KiB (40 % of the step of a small network). So freed blocks wait
// here for the next array of about their size.
#pragma once

#include <cstddef>

namespace fusedrnn {

// Arrays below this size are left to malloc, which keeps such memory itself.
inline constexpr std::size_t smallest_block = std::size_t(32) << 10;

// At least `bytes`, 64-byte aligned, not initialised. Throws std::bad_alloc.
void* take_block(std::size_t bytes);

// Gives back what take_block returned. At most 256 MiB wait; beyond, the oldest go back to the system.
void give_block(void* block) noexcept;

}  // namespace fusedrnn
