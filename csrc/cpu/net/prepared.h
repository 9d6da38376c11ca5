// Programs of run_net that are called again and again: a call brings its inputs and a number.
#pragma once
#include <cstdint>

namespace pyops::cpu {

// Lets go of what prepare_net held; calls that are under way end as they began.
void forget_prepared_net(int64_t number);

}  // namespace pyops::cpu
