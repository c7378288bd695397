// Mean attention maps and leakage of attention, in float32. Arrays are dense, last dimension fastest.
#pragma once

#include <cstdint>

namespace lesionforge {

// A = mean over heads of softmax(query key^T scale) for query, key (heads, tokens, depth).
struct MeanAttention {
    const float* query;
    const float* key;
    const float* values;  // (columns, tokens), or null
    float* map;           // A (tokens, tokens), or null
    float* out;           // A values^T (tokens, columns), unless values is null
    std::int64_t heads, tokens, depth, columns;
    float scale;
    int threads;
};

// Task t = case * tasks_per_case + j sums u[p] = sum_q A[p, q] values[t, q] over its rows p, A as above for its case.
struct Leakage {
    const float* query;           // (cases, heads, tokens, depth)
    const float* key;             // likewise
    const std::int64_t* rows;     // rows of task t: rows[offsets[t]] .. rows[offsets[t + 1] - 1]
    const std::int64_t* offsets;  // (tasks + 1)
    const float* values;          // (tasks, tokens)
    double* sums;                 // (tasks)
    float* query_gradient;        // (cases, heads, tokens, depth): only the rows of tasks are written; or null
    float* key_gradient;          // (tasks, heads, tokens, depth): added to; or null
    std::int64_t cases, tasks_per_case, heads, tokens, depth;
    float scale;
    int threads;
};

struct AttentionKernels {
    const char* name;
    void (*mean)(const MeanAttention&);
    void (*leakage)(const Leakage&);
};

extern const AttentionKernels kAttentionGeneric, kAttentionAvx2, kAttentionAvx512;

// The named set of instructions, or the widest of this CPU for "". Throws std::invalid_argument if it has not got it.
const AttentionKernels& attention_kernels(const char* name);
bool has_attention_kernels(const char* name);

}  // namespace lesionforge
