// Leakage on tiles: how its rows are shared among the workers.
#include "attention_amx_leakage.inl"

namespace lesionforge {
namespace {

// A gradient of keys that an earlier worker has begun.
struct Inherited {
    int64_t task = -1, head = 0;
    Regions regions{};
    float* gradient = nullptr;
};

// Hands out parts of one allocation; without memory it measures.
class Carver {
public:
    explicit Carver(char* memory) : memory_(memory) {}
    template <typename T>
    T* take(int64_t count) {
        T* const part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
        used_ += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
        return part;
    }
    int64_t used() const { return used_; }

private:
    char* memory_;
    int64_t used_ = 0;
};

LeakageScratch carve(const LeakagePlan& plan, bool gradients, Carver& memory) {
    LeakageScratch s{};
    s.regions.order = memory.take<int64_t>(plan.groups * kGroup);
    s.keys = memory.take<uint16_t>(plan.groups * plan.size);
    s.queries = memory.take<uint16_t>(kSlab * plan.size);
    s.offset = memory.take<float>(kSlab * kGroup);
    s.sums = memory.take<float>(2 * kSlab * kGroup);
    s.weights = memory.take<float>(2 * kSlab * kGroup);
    if (!gradients) return s;
    s.channels = memory.take<uint16_t>(plan.steps * plan.groups * plan.step);
    s.weighted = memory.take<uint16_t>(kSlab * 2 * plan.steps * plan.step);
    s.by_key = memory.take<uint16_t>(kPair * kKeyGroups * plan.step);
    s.by_row = memory.take<uint16_t>(kPair * kKeyGroups * plan.step);
    s.query_gradient = memory.take<float>(kSlab * 2 * plan.steps * kScores);
    s.key_gradient = memory.take<float>(plan.groups * kGroup * plan.width);
    return s;
}

int64_t blocks_of(const Leakage& a, int64_t task) {
    return (a.offsets[task + 1] - a.offsets[task] + kGroup - 1) / kGroup;
}

// Blocks [begin, end) of all tasks and heads. What a row leaks goes to leaked[task][head][row]. The gradient of a head
// that an earlier worker has begun is left to the caller.
template <int kParts, int kGradient>
Inherited leakage_range(const Leakage& a, const LeakagePlan& plan, int64_t begin, int64_t end, float* leaked,
                        LeakageScratch s, Carver memory) {
    Inherited inherited;
    int64_t before = 0;
    for (int64_t task = 0; task < a.cases * a.tasks_per_case; ++task)
        for (int64_t head = 0; head < a.heads; ++head, before += blocks_of(a, task)) {
            const int64_t first = begin > before ? begin - before : 0, last = least(blocks_of(a, task), end - before);
            if (first >= last) continue;
            const int64_t plane = (task / a.tasks_per_case * a.heads + head) * a.tokens * a.depth;
            s.regions = regions_of(a, task, s.regions.order);
            enter_head<kParts, kGradient>(a, plan, plane, s);
            const int64_t count = a.offsets[task + 1] - a.offsets[task];
            for (int64_t block = first; block < last; block += kSlab) {
                const int64_t row = block * kGroup, rows = least(least(kSlab, last - block) * kGroup, count - row);
                leakage_slab<kParts, kGradient>(a, plan, a.rows + a.offsets[task] + row, rows, plane,
                                                leaked + a.offsets[task] * a.heads + head * count + row, s);
            }
            if (a.key_gradient == nullptr) continue;
            if (first == 0) {
                leave_head(a, plan, task, head, false, s.regions, s.key_gradient);
                continue;
            }
            inherited = {task, head, s.regions, s.key_gradient};
            s.regions.order = memory.take<int64_t>(plan.groups * kGroup);
            s.key_gradient = memory.take<float>(plan.groups * kGroup * plan.width);
        }
    return inherited;
}

template <int kParts, int kGradient>
void leakage(const Leakage& a, bool bounded) {
    LeakagePlan plan;
    plan.steps = (a.depth + 31) / 32;
    plan.width = plan.steps * 32;
    plan.size = operand_size<kParts>(plan.steps);
    plan.step = operand_size<kGradient>(1);
    plan.groups = (a.tokens + kGroup - 1) / kGroup + 1;
    plan.factor = a.scale * kLog2E;
    plan.bounded = bounded;
    const int64_t tasks = a.cases * a.tasks_per_case;
    int64_t blocks = 0;
    for (int64_t task = 0; task < tasks; ++task) blocks += blocks_of(a, task) * a.heads;
    for (int64_t task = 0; task < tasks; ++task) a.sums[task] = 0;
    if (blocks == 0) return;
    const int team = static_cast<int>(least(a.threads, blocks));
    Carver measured(nullptr);
    carve(plan, a.key_gradient != nullptr, measured);
    if (a.key_gradient != nullptr) {
        measured.take<int64_t>(plan.groups * kGroup);
        measured.take<float>(plan.groups * kGroup * plan.width);
    }
    const Scratch scratch(team * measured.used()), leaked(a.offsets[tasks] * a.heads * 4);
    const Scratch heads(team * static_cast<int64_t>(sizeof(Inherited)));
    auto* const inherited = heads.as<Inherited>();
#pragma omp parallel for schedule(static) num_threads(team)
    for (int worker = 0; worker < team; ++worker) {
        const Tiles tiles;
        Carver memory(scratch.as<char>() + worker * measured.used());
        const LeakageScratch s = carve(plan, a.key_gradient != nullptr, memory);
        const int64_t begin = blocks * worker / team, end = blocks * (worker + 1) / team;
        inherited[worker] = leakage_range<kParts, kGradient>(a, plan, begin, end, leaked.as<float>(), s, memory);
    }
    for (int worker = 0; worker < team; ++worker)
        if (inherited[worker].task >= 0)
            leave_head(a, plan, inherited[worker].task, inherited[worker].head, true, inherited[worker].regions,
                       inherited[worker].gradient);
    const float* from = leaked.as<float>();
    for (int64_t task = 0; task < tasks; ++task)
        for (int64_t i = (a.offsets[task + 1] - a.offsets[task]) * a.heads; i > 0; --i) a.sums[task] += *from++;
}

}  // namespace
}  // namespace lesionforge
