// Choice of the kernels' instruction set, and which families of them are in use.
#include "kernels/kernels.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "dispatch.h"
#include "guard.h"

namespace oarlock {

#if defined(__x86_64__)
static const Kernels &choose() {
  int level = 0;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) level = 1;
  if (level == 1 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    level = 2;
  if (level == 2 && __builtin_cpu_supports("avx512bf16")) level = 3;
  const char *names[] = {"base", "avx2", "avx512", "avx512bf16"};
  const Kernels *sets[] = {&kernels_base, &kernels_avx2, &kernels_avx512, &kernels_avx512bf16};
  // A smaller set than the processor has may be asked for, to test it or to rule it out.
  if (const char *most = std::getenv("OARLOCK_KERNELS"))
    for (int i = 0; i < level; ++i)
      if (!std::strcmp(most, names[i])) level = i;
  return *sets[level];
}
#else
static const Kernels &choose() { return kernels_base; }
#endif

const Kernels &kernels() {
  static const Kernels &chosen = choose();
  return chosen;
}

namespace {

struct Name { const char *name; Family family; };
constexpr Name kNames[] = {{"depthwise", FAMILY_DEPTHWISE},
                           {"pointwise", FAMILY_POINTWISE},
                           {"norm", FAMILY_NORM},
                           {"se", FAMILY_SE},
                           {"optim", FAMILY_OPTIM}};

uint32_t family_named(const std::string &name) {
  for (const Name &known : kNames)
    if (name == known.name) return known.family;
  std::string list;
  for (const Name &known : kNames) list += std::string(list.empty() ? "" : ", ") + known.name;
  throw std::runtime_error("OARLOCK_DISABLE_KERNELS names the unknown kernel `" + name + "`; known: " + list);
}

uint32_t switched_on() {
  const char *text = std::getenv("OARLOCK_DISABLE_KERNELS");
  if (!text) return UINT32_MAX;
  uint32_t off = 0;
  std::string word;
  for (const char *c = text;; ++c) {
    if (*c != ',' && *c != ' ' && *c) {
      word += *c;
      continue;
    }
    if (!word.empty()) off |= family_named(word);
    word.clear();
    if (!*c) break;
  }
  return ~off;
}

std::atomic<uint32_t> &in_use() {
  static std::atomic<uint32_t> families{switched_on()};
  return families;
}

}  // namespace

void read_switches() { in_use(); }

bool enabled(Family family) { return in_use().load(std::memory_order_relaxed) & family; }

}  // namespace oarlock

extern "C" ok_status ok_kernels_use(uint32_t families, uint32_t *before) {
  return oarlock::guarded([&] { *before = oarlock::in_use().exchange(families); });
}

extern "C" const char *ok_kernels_name(void) {
  const oarlock::Kernels *chosen = &oarlock::kernels();
#if defined(__x86_64__)
  if (chosen == &oarlock::kernels_avx512bf16) return "avx512bf16";
  if (chosen == &oarlock::kernels_avx512) return "avx512";
  if (chosen == &oarlock::kernels_avx2) return "avx2";
#endif
  return chosen == &oarlock::kernels_base ? "base" : "unknown";
}
