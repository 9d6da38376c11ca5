// Coefficients of 2^r for 0 <= r < 1, ascending powers, with the smallest largest relative error:
// 7.5e-5 with 4 terms, 7.5e-8 with 6 (`fit` of scripts/fit_polynomials.py on 2**x).
#pragma once

namespace pyops::cpu {

template <int kTerms>
constexpr float kExp2[kTerms] = {};
template <>
inline constexpr float kExp2<4>[4] = {0.999925196f, 0.695833564f, 0.226067156f, 0.0780245215f};
template <>
inline constexpr float kExp2<6>[6] = {0.99999994f,   0.693153083f,   0.240153611f,
                                      0.0558263175f, 0.00898933969f, 0.00187757669f};

}  // namespace pyops::cpu
