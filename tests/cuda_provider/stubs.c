/* Stubs of the libraries that ONNX Runtime's CUDA provider loads: CUDA's runtime, cuBLAS, cuRAND, cuDNN
 * and the driver. One library with all their names.
 *
 * The stubs report a GPU of compute capability 9.0 with 132 multiprocessors, return addresses, compute
 * nothing and write a line per call to the file STUBS_TRACE. The decisions of the provider are real:
 * whether a node has a kernel, which kernel, and the order of its calls. Not tested: results, times,
 * and errors of cuBLAS, cuDNN and the driver.
 *
 * Signatures only match the calling convention of the platform: handles are pointers, enumerations are
 * ints, offsets within structures are those of CUDA 13. */

#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct {
  unsigned x, y, z;
} dim3;

enum { MULTIPROCESSORS = 132, MAJOR = 9, MINOR = 0, SHARED_MEMORY = 49152, LARGEST_SHARED = 232448 };
#define MEMORY ((size_t)80 << 30)

/* --- The trace. Lines of calls during a capture begin with "captured ". */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *trace;
/* The stream that is captured; other streams are not distinguished. */
static void *captured_stream;
static int is_capturing;

static void line(const char *format, ...) {
  pthread_mutex_lock(&lock);
  if (!trace) {
    const char *path = getenv("STUBS_TRACE");
    trace = fopen(path ? path : "/dev/null", "w");
    if (!trace) abort();
  }
  if (is_capturing) fputs("captured ", trace);
  va_list arguments;
  va_start(arguments, format);
  vfprintf(trace, format, arguments);
  va_end(arguments);
  fputc('\n', trace);
  fflush(trace);
  pthread_mutex_unlock(&lock);
}

/* For the test: writes a mark between calls. */
void stubs_mark(const char *text) { line("mark %s", text); }

/* --- Memory: addresses of an inaccessible range. */

static char *range, *next;
static const size_t RANGE = (size_t)1 << 41;

static int on_device(const void *p) {
  return range && (const char *)p >= range && (const char *)p < range + RANGE;
}

void *stubs_allocate(size_t bytes) {
  pthread_mutex_lock(&lock);
  if (!range) {
    range = mmap(0, RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) abort();
    next = range;
  }
  char *place = next;
  next += (bytes + 511) / 512 * 512 + 512;
  pthread_mutex_unlock(&lock);
  return place;
}

int cudaMalloc(void **p, size_t bytes) {
  line("cudaMalloc %zu", bytes);
  *p = stubs_allocate(bytes);
  return 0;
}
int cudaMallocFromPoolAsync(void **p, size_t bytes, void *pool, void *stream) { return cudaMalloc(p, bytes); }
int cudaFree(void *p) { line("cudaFree"); return 0; }
int cudaFreeAsync(void *p, void *stream) { line("cudaFree"); return 0; }
int cudaHostAlloc(void **p, size_t bytes, unsigned flags) {
  line("cudaHostAlloc %zu", bytes);
  *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  return *p ? 0 : 2;
}
int cudaMallocHost(void **p, size_t bytes) { return cudaHostAlloc(p, bytes, 0); }
int cudaFreeHost(void *p) { line("cudaFreeHost"); free(p); return 0; }
int cudaMemGetInfo(size_t *free_bytes, size_t *total) { *free_bytes = *total = MEMORY; return 0; }
int cudaPointerGetAttributes(char *attributes, const void *p) {
  memset(attributes, 0, 24);
  *(int *)attributes = on_device(p) ? 2 : 0; /* cudaMemoryTypeDevice, Unregistered */
  memcpy(attributes + 8, &p, sizeof p);
  return 0;
}

static const char *direction(const void *to, const void *from) {
  return on_device(to) ? on_device(from) ? "device to device" : "host to device"
                       : on_device(from) ? "device to host" : "host to host";
}
static void copy(void *to, const void *from, size_t bytes) {
  if (on_device(to)) return;
  if (on_device(from)) memset(to, 0, bytes); else memcpy(to, from, bytes);
}
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
  line("cudaMemcpy %s", direction(to, from));
  copy(to, from, bytes);
  return 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
  line("cudaMemcpyAsync %s", direction(to, from));
  copy(to, from, bytes);
  return 0;
}
int cudaMemcpy2DAsync(void *to, size_t pitch, const void *from, size_t from_pitch, size_t width,
                      size_t height, int kind, void *stream) {
  line("cudaMemcpyAsync %s", direction(to, from));
  return 0;
}
int cudaMemcpyFromSymbol(void *to, const void *symbol, size_t bytes, size_t offset, int kind) {
  memset(to, 0, bytes);
  return 0;
}
int cudaMemset(void *p, int value, size_t bytes) {
  line("cudaMemset %zu", bytes);
  if (!on_device(p)) memset(p, value, bytes);
  return 0;
}
int cudaMemsetAsync(void *p, int value, size_t bytes, void *stream) { line("cudaMemsetAsync"); return 0; }

/* --- The device. */

int cudaGetDeviceCount(int *n) { *n = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaGetLastError(void) { return 0; }
int cudaPeekAtLastError(void) { return 0; }
const char *cudaGetErrorName(int error) { return "stub"; }
const char *cudaGetErrorString(int error) { return "stub"; }
int cudaDeviceSynchronize(void) { line("cudaDeviceSynchronize"); return 0; }

int cudaGetDeviceProperties(char *properties, int device) {
  memset(properties, 0, 1008);
  strcpy(properties, "stub GPU");
  const struct { size_t at; size_t bytes; uint64_t value; } set[] = {
      {288, 8, MEMORY},           {296, 8, SHARED_MEMORY}, {304, 4, 65536},    {308, 4, 32},
      {320, 4, 1024},             {324, 4, 1024},          {328, 4, 1024},     {332, 4, 64},
      {336, 4, 2147483647},       {340, 4, 65535},         {344, 4, 65535},    {352, 8, 65536},
      {360, 4, MAJOR},            {364, 4, MINOR},         {384, 4, MULTIPROCESSORS},
      {560, 4, 1},                {588, 4, 1},             {596, 4, 52428800}, {604, 4, 2048},
      {624, 8, 233472},           {632, 4, 65536},         {668, 4, 1},        {672, 8, LARGEST_SHARED},
      {688, 4, 32},               {696, 8, 1024},
  };
  for (size_t i = 0; i < sizeof set / sizeof *set; i++) memcpy(properties + set[i].at, &set[i].value, set[i].bytes);
  return 0;
}
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) {
    case 1: *value = 1024; break;              /* threads per block */
    case 5: *value = 2147483647; break;        /* blocks per grid */
    case 8: *value = SHARED_MEMORY; break;
    case 10: *value = 32; break;               /* threads per warp */
    case 16: *value = MULTIPROCESSORS; break;
    case 38: *value = 52428800; break;         /* bytes of the second-level cache */
    case 39: *value = 2048; break;             /* threads per multiprocessor */
    case 75: *value = MAJOR; break;
    case 76: *value = MINOR; break;
    case 81: *value = 233472; break;           /* shared memory per multiprocessor */
    case 97: *value = LARGEST_SHARED; break;
    default: *value = 1;
  }
  return 0;
}

/* --- Streams, captures, graphs, events. */

static void *numbered(void) {
  static _Atomic uintptr_t last = 0x1000;
  return (void *)(last += 16);
}
int cudaStreamCreate(void **stream) { *stream = numbered(); return 0; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { *stream = numbered(); return 0; }
int cudaStreamDestroy(void *stream) { return 0; }
int cudaStreamSynchronize(void *stream) { line("cudaStreamSynchronize"); return 0; }
int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) { return 0; }
int cudaStreamIsCapturing(void *stream, int *status) {
  *status = is_capturing && stream == captured_stream;
  return 0;
}
int cudaStreamBeginCapture(void *stream, int mode) {
  captured_stream = stream;
  is_capturing = 1;
  return 0;
}
int cudaStreamEndCapture(void *stream, void **graph) {
  is_capturing = 0;
  *graph = numbered();
  return 0;
}
int cudaGraphInstantiate(void **executable, void *graph, unsigned long long flags) {
  *executable = numbered();
  return 0;
}
int cudaGraphLaunch(void *executable, void *stream) { line("cudaGraphLaunch"); return 0; }
int cudaGraphDestroy(void *graph) { return 0; }
int cudaGraphExecDestroy(void *executable) { return 0; }
int cudaEventCreate(void **event) { *event = numbered(); return 0; }
int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = numbered(); return 0; }
int cudaEventDestroy(void *event) { return 0; }
int cudaEventRecord(void *event, void *stream) { return 0; }
int cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) { return 0; }
int cudaEventSynchronize(void *event) { line("cudaEventSynchronize"); return 0; }
int cudaEventElapsedTime(float *milliseconds, void *from, void *to) { *milliseconds = 1; return 0; }
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
  line("cudaLaunchHostFunc");
  function(data);
  return 0;
}
int cudaMemPoolCreate(void **pool, const void *properties) { *pool = numbered(); return 0; }
int cudaMemPoolDestroy(void *pool) { return 0; }
int cudaMemPoolGetAttribute(void *pool, int attribute, uint64_t *value) { *value = 0; return 0; }
int cudaMemPoolSetAttribute(void *pool, int attribute, void *value) { return 0; }
int cudaMemPoolTrimTo(void *pool, size_t bytes) { return 0; }

/* --- Kernels, identified by the name under which the provider registers them. */

static struct {
  const void *host;
  const char *name;
} kernels[1 << 17];
static size_t n_kernels;

void **__cudaRegisterFatBinary(void *binary) { static void *handle[1]; return handle; }
void __cudaRegisterFatBinaryEnd(void **handle) {}
void __cudaUnregisterFatBinary(void **handle) {}
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external,
                       size_t bytes, int constant, int global) {}
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int limit,
                            void *thread, void *block, void *block_size, void *grid_size, int *warp) {
  if (n_kernels == sizeof kernels / sizeof *kernels) abort();
  kernels[n_kernels].host = host;
  kernels[n_kernels++].name = name;
}
static int launched(const void *kernel) {
  const char *name = "unknown";
  for (size_t i = 0; i < n_kernels; i++)
    if (kernels[i].host == kernel) name = kernels[i].name;
  line("kernel %s", name);
  return 0;
}
int cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, void *stream) {
  return launched(kernel);
}
int cudaLaunchCooperativeKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                                void *stream) {
  return launched(kernel);
}
int cudaLaunchKernelExC(const void *configuration, const void *kernel, void **arguments) {
  return launched(kernel);
}
int __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, void *stream) {
  return launched(kernel);
}
int __cudaGetKernel(void **kernel, const void *host) { *kernel = (void *)host; return 0; }
static __thread struct {
  dim3 grid, block;
  size_t shared;
  void *stream;
} pushed[16];
static __thread int n_pushed;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
  pushed[n_pushed].grid = grid;
  pushed[n_pushed].block = block;
  pushed[n_pushed].shared = shared;
  pushed[n_pushed++].stream = stream;
  return 0;
}
int __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void **stream) {
  n_pushed--;
  *grid = pushed[n_pushed].grid;
  *block = pushed[n_pushed].block;
  *shared = pushed[n_pushed].shared;
  *stream = pushed[n_pushed].stream;
  return 0;
}
int cudaFuncGetAttributes(char *attributes, const void *kernel) {
  memset(attributes, 0, 144);
  const struct { size_t at; int value; } set[] = {{24, 1024}, {28, 64}, {32, 90}, {36, 90}, {44, LARGEST_SHARED}};
  for (size_t i = 0; i < sizeof set / sizeof *set; i++) memcpy(attributes + set[i].at, &set[i].value, 4);
  return 0;
}
int cudaFuncSetAttribute(const void *kernel, int attribute, int value) { return 0; }
int cudaKernelSetAttributeForDevice(void *kernel, int attribute, int value, int device) { return 0; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *kernel, int threads, size_t shared,
                                                           unsigned flags) {
  *n = 2;
  return 0;
}
int cudaLibraryLoadData(void **library, const void *code, void *a, void *b, unsigned c, void *d, void *e,
                        unsigned f) {
  *library = numbered();
  return 0;
}
int cudaLibraryGetKernel(void **kernel, void *library, const char *name) { *kernel = numbered(); return 0; }
int cudaLibraryUnload(void *library) { return 0; }
static int succeed(void) { return 0; }
int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                     unsigned long long flags, int *result) {
  *function = (void *)succeed;
  if (result) *result = 0;
  return 0;
}
int cuTensorMapEncodeTiled(void) { return 0; }

/* --- Vendor libraries: calls that enqueue work write a line, others only succeed. */

#define ENQUEUES(name) int name(void) { line(#name); return 0; }
#define SUCCEEDS(name) int name(void) { return 0; }
#define CREATES(name) int name(void **made) { *made = calloc(1, 256); return *made ? 0 : 3; }

CREATES(cublasCreate_v2)
SUCCEEDS(cublasDestroy_v2)
SUCCEEDS(cublasSetStream_v2)
SUCCEEDS(cublasSetMathMode)
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
const char *cublasGetStatusName(int status) { return "stub"; }
const char *cublasGetStatusString(int status) { return "stub"; }
ENQUEUES(cublasDgeam)
ENQUEUES(cublasDgemmBatched)
ENQUEUES(cublasDgemmStridedBatched)
ENQUEUES(cublasDgemm_v2)
ENQUEUES(cublasDgetrfBatched)
ENQUEUES(cublasDgetriBatched)
ENQUEUES(cublasGemmBatchedEx)
ENQUEUES(cublasGemmEx)
ENQUEUES(cublasGemmStridedBatchedEx)
ENQUEUES(cublasScopy_v2)
ENQUEUES(cublasSgeam)
ENQUEUES(cublasSgemmBatched)
ENQUEUES(cublasSgemmStridedBatched)
ENQUEUES(cublasSgemm_v2)
ENQUEUES(cublasSgetrfBatched)
ENQUEUES(cublasSgetriBatched)
ENQUEUES(cublasSscal_v2)

CREATES(cublasLtCreate)
SUCCEEDS(cublasLtDestroy)
ENQUEUES(cublasLtMatmul)
ENQUEUES(cublasLtMatrixTransform)
CREATES(cublasLtMatmulDescCreate)
CREATES(cublasLtMatmulPreferenceCreate)
CREATES(cublasLtMatrixLayoutCreate)
CREATES(cublasLtMatrixTransformDescCreate)
SUCCEEDS(cublasLtMatmulAlgoConfigSetAttribute)
SUCCEEDS(cublasLtMatmulAlgoInit)
SUCCEEDS(cublasLtMatmulDescDestroy)
SUCCEEDS(cublasLtMatmulDescSetAttribute)
SUCCEEDS(cublasLtMatmulPreferenceDestroy)
SUCCEEDS(cublasLtMatmulPreferenceSetAttribute)
SUCCEEDS(cublasLtMatrixLayoutDestroy)
SUCCEEDS(cublasLtMatrixLayoutSetAttribute)
SUCCEEDS(cublasLtMatrixTransformDescDestroy)
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d,
                                   void *preference, int wanted, void *results, int *found) {
  memset(results, 0, 96); /* cublasLtMatmulHeuristicResult_t */
  *found = 1;
  return 0;
}

size_t cudnnGetVersion(void) { return 91500; }
size_t cudnnGetCudartVersion(void) { return 13000; }
const char *cudnnGetErrorString(int status) { return "stub"; }
void cudnnGetLastErrorString(char *text, size_t bytes) { if (bytes) *text = 0; }
int cudnnSetStream(void **handle, void *stream) { *handle = stream; return 0; }
int cudnnGetStream(void **handle, void **stream) { *stream = *handle; return 0; }
CREATES(cudnnCreate)
SUCCEEDS(cudnnDestroy)
/* Every engine configuration is supported: one plan, no workspace, no notes. */
int cudnnBackendCreateDescriptor(int type, void **made) { *made = calloc(1, 256); return *made ? 0 : 3; }
int cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t wanted, int64_t *count, void *values) {
  enum { INT64 = 3, DESCRIPTOR = 15, INT32 = 23 };
  if (count) *count = type == INT64 || type == DESCRIPTOR || type == INT32;
  if (values && wanted > 0 && type == INT64) memset(values, 0, 8 * wanted);
  if (values && wanted > 0 && type == INT32) memset(values, 0, 4 * wanted);
  return 0;
}
SUCCEEDS(cudnnBackendDestroyDescriptor)
SUCCEEDS(cudnnBackendFinalize)
SUCCEEDS(cudnnBackendSetAttribute)
ENQUEUES(cudnnBackendExecute)
ENQUEUES(cudnnActivationForward)
ENQUEUES(cudnnAddTensor)
ENQUEUES(cudnnBatchNormalizationForwardInference)
ENQUEUES(cudnnConvolutionForward)
ENQUEUES(cudnnPoolingForward)
ENQUEUES(cudnnReduceTensor)
ENQUEUES(cudnnSoftmaxForward)
int cudnnGetReductionWorkspaceSize(void *h, void *r, void *a, void *c, size_t *bytes) { *bytes = 0; return 0; }
int cudnnGetReductionIndicesSize(void *h, void *r, void *a, void *c, size_t *bytes) { *bytes = 0; return 0; }
CREATES(cudnnCreateActivationDescriptor)
CREATES(cudnnCreateConvolutionDescriptor)
CREATES(cudnnCreateDropoutDescriptor)
CREATES(cudnnCreateFilterDescriptor)
CREATES(cudnnCreateLRNDescriptor)
CREATES(cudnnCreatePoolingDescriptor)
CREATES(cudnnCreateRNNDataDescriptor)
CREATES(cudnnCreateRNNDescriptor)
CREATES(cudnnCreateReduceTensorDescriptor)
CREATES(cudnnCreateTensorDescriptor)
SUCCEEDS(cudnnBatchNormalizationForwardTraining)
SUCCEEDS(cudnnConvolutionBiasActivationForward)
SUCCEEDS(cudnnDeriveBNTensorDescriptor)
SUCCEEDS(cudnnDestroyActivationDescriptor)
SUCCEEDS(cudnnDestroyConvolutionDescriptor)
SUCCEEDS(cudnnDestroyDropoutDescriptor)
SUCCEEDS(cudnnDestroyFilterDescriptor)
SUCCEEDS(cudnnDestroyLRNDescriptor)
SUCCEEDS(cudnnDestroyPoolingDescriptor)
SUCCEEDS(cudnnDestroyRNNDataDescriptor)
SUCCEEDS(cudnnDestroyRNNDescriptor)
SUCCEEDS(cudnnDestroyReduceTensorDescriptor)
SUCCEEDS(cudnnDestroyTensorDescriptor)
SUCCEEDS(cudnnDropoutGetStatesSize)
SUCCEEDS(cudnnFindConvolutionForwardAlgorithmEx)
SUCCEEDS(cudnnGetConvolutionForwardAlgorithm_v7)
SUCCEEDS(cudnnGetConvolutionForwardWorkspaceSize)
SUCCEEDS(cudnnGetRNNTempSpaceSizes)
SUCCEEDS(cudnnGetRNNWeightParams)
SUCCEEDS(cudnnGetTensorNdDescriptor)
SUCCEEDS(cudnnLRNCrossChannelForward)
SUCCEEDS(cudnnRNNForward)
SUCCEEDS(cudnnSetActivationDescriptor)
SUCCEEDS(cudnnSetConvolutionGroupCount)
SUCCEEDS(cudnnSetConvolutionMathType)
SUCCEEDS(cudnnSetConvolutionNdDescriptor)
SUCCEEDS(cudnnSetDropoutDescriptor)
SUCCEEDS(cudnnSetFilterNdDescriptor)
SUCCEEDS(cudnnSetLRNDescriptor)
SUCCEEDS(cudnnSetPoolingNdDescriptor)
SUCCEEDS(cudnnSetRNNDataDescriptor)
SUCCEEDS(cudnnSetRNNDescriptor_v8)
SUCCEEDS(cudnnSetReduceTensorDescriptor)
SUCCEEDS(cudnnSetTensorNdDescriptor)
