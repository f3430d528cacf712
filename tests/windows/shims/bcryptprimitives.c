/* bcryptprimitives.dll, which Wine 8 does not have. Rust's standard library imports ProcessPrng from it, and with that
 * every package written in Rust. SystemFunction036 is RtlGenRandom, of advapi32.dll (Microsoft, ntsecapi.h). */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length) {
    return SystemFunction036(buffer, (ULONG)length) ? TRUE : FALSE;
}
