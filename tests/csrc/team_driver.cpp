// Teams without torch: loops that are shared, by threads that come at once, late, or not at all.
#include "cpu/common/team.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using pyops::cpu::Team;

namespace {

int failures = 0;

void expect(bool good, const char* what) {
  if (good) return;
  std::printf("FAILED: %s\n", what);
  ++failures;
}

// f of a team of `threads`, of which `come` come, the last one late.
template <class F>
void run(int threads, int come, const F& f) {
  Team team(threads);
  std::vector<std::thread> others;
  for (int i = 1; i < come; ++i) {
    others.emplace_back([&team, late = i > 1 && i + 1 == come] {
      if (late) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      team.follow();
    });
  }
  team.lead(come == 1, [&] { f(team); });
  expect(Team::current() == nullptr, "no team is left");
  for (std::thread& other : others) other.join();
}

// Each loop reads what the one before it wrote, in other parts.
void chain(Team& team, int rounds) {
  std::vector<int64_t> from(1000, 1), to(1000);
  for (int round = 0; round < rounds; ++round) {
    const int64_t count = 1 + (round * 37) % 999, grain = round % 5 * 100;
    std::atomic<int64_t> seen{0};
    team.loop(count, grain, [&](int64_t begin, int64_t end) {
      if (Team::current()) std::abort();  // loops inside of loops are not shared
      for (int64_t i = begin; i < end; ++i) to[i] = from[count - 1 - i] + 1;
      seen += end - begin;
    });
    expect(seen == count, "every index once");
    for (int64_t i = 0; i < count; ++i) {
      if (to[i] != from[count - 1 - i] + 1) expect(false, "what the loop wrote");
    }
    from = to;
    expect(Team::current() == &team, "the team is back");
  }
}

void throws(Team& team) {
  for (int round = 0; round < 50; ++round) {
    bool caught = false;
    try {
      team.loop(8, 1, [&](int64_t begin, int64_t) {
        if ((begin == 0 && round % 2 == 0) || round % 3 == 0) throw std::runtime_error("part");
      });
    } catch (const std::runtime_error& error) {
      caught = std::string(error.what()) == "part";
    }
    expect(caught == (round % 2 == 0 || round % 3 == 0), "errors of parts, and no others");
  }
  chain(team, 20);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 300;
  for (int threads = 1; threads <= 5; ++threads) {
    for (int come = 1; come <= threads; ++come) {
      run(threads, come, [&](Team& team) { chain(team, rounds); });
      run(threads, come, throws);
      run(threads, come, [](Team&) {});
      try {
        run(threads, 1, [](Team&) { throw std::logic_error("leader"); });
        expect(false, "the leader's own error");
      } catch (const std::logic_error&) {
        expect(Team::current() == nullptr, "no team is left by an error");
      }
    }
  }
  std::printf("%d failures\n", failures);
  return failures != 0;
}
