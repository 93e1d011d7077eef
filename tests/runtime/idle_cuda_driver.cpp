// In place of the CUDA driver on machines without one: as much as cuDNN calls while it builds a plan, doing nothing,
// and the names of what else it looks up.
namespace {
constexpr int success = 0, stub_library = 34;  // CUresult
char object;
}  // namespace

extern "C" {

int cuDriverGetVersion(int* version) {
  *version = 13000;
  return success;
}
int cuLibraryLoadData(void** library, const void*, void*, void*, unsigned, void*, void*, unsigned) {
  *library = &object;
  return success;
}
int cuLibraryGetKernel(void** kernel, void*, const char*) {
  *kernel = &object;
  return success;
}
int cuLibraryUnload(void*) { return success; }
int cuKernelSetAttribute(int, int, void*, int) { return success; }

#define NOT_HERE(name) \
  int name() { return stub_library; }
NOT_HERE(cuCtxGetCurrent)
NOT_HERE(cuCtxGetLimit)
NOT_HERE(cuCtxPopCurrent)
NOT_HERE(cuCtxPushCurrent)
NOT_HERE(cuDeviceGet)
NOT_HERE(cuDeviceGetCount)
NOT_HERE(cuGetErrorName)
NOT_HERE(cuGetErrorString)
NOT_HERE(cuInit)
NOT_HERE(cuKernelGetAttribute)
NOT_HERE(cuLaunchCooperativeKernel)
NOT_HERE(cuLaunchKernel)
NOT_HERE(cuLaunchKernelEx)
NOT_HERE(cuLibraryLoadFromFile)
NOT_HERE(cuLinkAddData)
NOT_HERE(cuLinkComplete)
NOT_HERE(cuLinkCreate)
NOT_HERE(cuLinkDestroy)
NOT_HERE(cuOccupancyMaxPotentialClusterSize)
NOT_HERE(cuStreamGetCtx)
}
