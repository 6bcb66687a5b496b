/* Instantiates _kernel_body.h for each precision and instruction set, and chooses among them at run time. */
#include "_kernel.h"

#include <math.h>
#include <string.h>

#if defined(__GNUC__)
#define RESTRICT restrict
#define FLATTEN static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 12")
#endif
#else
#define UNROLL
#if defined(_MSC_VER)
#define RESTRICT __restrict
#define FLATTEN static __forceinline
#define NOINLINE static __declspec(noinline)
#else
#define RESTRICT restrict
#define FLATTEN static inline
#define NOINLINE static
#endif
#endif

/* Has a vector loaded once, where the compiler would read it from memory for each use. */
#if defined(__GNUC__) && defined(__x86_64__)
#define KEEP(vector) __asm__("" : "+v"(vector))
#else
#define KEEP(vector) ((void)0)
#endif

/* Masks of __builtin_shufflevector over two columns of a tile: their values interleaved, or what is interleaved apart. */
#if defined(__has_builtin)
#define HAS_SHUFFLE __has_builtin(__builtin_shufflevector)
#else
#define HAS_SHUFFLE 0
#endif
#define LOW_4 0, 4, 1, 5
#define HIGH_4 2, 6, 3, 7
#define EVEN_4 0, 2, 4, 6
#define ODD_4 1, 3, 5, 7
#define LOW_8 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_8 4, 12, 5, 13, 6, 14, 7, 15
#define EVEN_8 0, 2, 4, 6, 8, 10, 12, 14
#define ODD_8 1, 3, 5, 7, 9, 11, 13, 15
#define MASK(part, rows) MASK_(part, rows)
#define MASK_(part, rows) part##_##rows

#define PASTE_(a, b, c) a##_##b##_##c
#define PASTE(a, b, c) PASTE_(a, b, c)

/* Every instruction set: its name, the attribute that allows it, the bytes of a vector (0: the compiler has no
 * vector type, tiles are made of scalars) and the rows of a register tile. */
#define ISA baseline
#define TARGET
#if defined(__GNUC__)
#define VECTOR_BYTES 16
#else
#define VECTOR_BYTES 0
#endif
#define TILE_ROWS 4
#define REAL_IS_DOUBLE 1
#include "_kernel_body.h"
#define REAL_IS_DOUBLE 0
#include "_kernel_body.h"
#undef ISA
#undef TARGET
#undef VECTOR_BYTES
#undef TILE_ROWS

#if defined(__GNUC__) && defined(__x86_64__) && !defined(CSOFTMAX_BASELINE)
#define DISPATCH 1

#define ISA avx2
#define TARGET __attribute__((target("avx2,fma")))
#define VECTOR_BYTES 32
#define TILE_ROWS 4
#define REAL_IS_DOUBLE 1
#include "_kernel_body.h"
#define REAL_IS_DOUBLE 0
#include "_kernel_body.h"
#undef ISA
#undef TARGET
#undef VECTOR_BYTES
#undef TILE_ROWS

#define ISA avx512
#if defined(__clang__)
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512dq,avx512vl,avx512bw")))
#else
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512dq,avx512vl,avx512bw,prefer-vector-width=512")))
#endif
#define VECTOR_BYTES 64
#define TILE_ROWS 8
#define REAL_IS_DOUBLE 1
#include "_kernel_body.h"
#define REAL_IS_DOUBLE 0
#include "_kernel_body.h"

#endif

static const cs_kernels *active_f64 = &table_f64_baseline, *active_f32 = &table_f32_baseline;

const cs_kernels *cs_table(size_t itemsize)
{
    return itemsize == sizeof(double) ? active_f64 : active_f32;
}

#if defined(DISPATCH)

const char *const cs_names[] = {"baseline", "avx2", "avx512", NULL};

const char *cs_select(const char *name)
{
    int avx2, avx512;
    __builtin_cpu_init();
    avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    if (avx512 && (name == NULL || strcmp(name, "avx512") == 0)) {
        active_f64 = &table_f64_avx512;
        active_f32 = &table_f32_avx512;
        return "avx512";
    }
    if (avx2 && (name == NULL || strcmp(name, "avx2") == 0)) {
        active_f64 = &table_f64_avx2;
        active_f32 = &table_f32_avx2;
        return "avx2";
    }
    if (name == NULL || strcmp(name, "baseline") == 0) {
        active_f64 = &table_f64_baseline;
        active_f32 = &table_f32_baseline;
        return "baseline";
    }
    return NULL;
}

#else

const char *const cs_names[] = {"baseline", NULL};

const char *cs_select(const char *name)
{
    return name == NULL || strcmp(name, "baseline") == 0 ? "baseline" : NULL;
}

#endif
