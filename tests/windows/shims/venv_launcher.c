/* The python.exe of a virtual environment on Windows. Like CPython 3.11's (PC/launcher.c, built with VENV_REDIRECT) it
 * reads pyvenv.cfg beside its folder, starts the Python that "home" names as its child, with the environment's
 * program in __PYVENV_LAUNCHER__, waits for it and exits with its code. The child is in a job that ends with this
 * process; what the child starts is not. Ctrl-C and Ctrl-Break are left to the child. */
#include <windows.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define PATH_LENGTH 32768
/* Wine 8 was seen not to start a process, once in thousands of times: it is asked again before this gives up. */
#define TRIES 5
#define PAUSE_MS 200

static wchar_t self[PATH_LENGTH], folder[PATH_LENGTH], home[PATH_LENGTH], command[2 * PATH_LENGTH];

static BOOL WINAPI ignore(DWORD event) {
    (void)event;
    return TRUE;
}

/* Cuts the last part off a path. */
static void to_parent(wchar_t *path) {
    wchar_t *separator = wcsrchr(path, L'\\');
    if (separator) *separator = 0;
}

/* Reads "home = FOLDER" (UTF-8) from pyvenv.cfg; returns whether it is there. */
static BOOL read_home(const wchar_t *configuration) {
    char line[4096];
    FILE *file = _wfopen(configuration, L"rb");
    if (!file) return FALSE;
    while (fgets(line, sizeof line, file)) {
        char *value = strchr(line, '=');
        if (strncmp(line, "home", 4) != 0 || !value) continue;
        value++;
        while (*value == ' ') value++;
        value[strcspn(value, "\r\n")] = 0;
        MultiByteToWideChar(CP_UTF8, 0, value, -1, home, PATH_LENGTH);
    }
    fclose(file);
    return home[0] != 0;
}

/* Returns our own command line from the end of the program's name on. */
static const wchar_t *arguments(void) {
    const wchar_t *rest = GetCommandLineW();
    if (*rest == L'"') {
        rest++;
        while (*rest && *rest != L'"') rest++;
        if (*rest) rest++;
    } else {
        while (*rest && *rest != L' ' && *rest != L'\t') rest++;
    }
    return rest;
}

static HANDLE job_that_ends_with_us(void) {
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits;
    HANDLE job = CreateJobObjectW(NULL, NULL);
    QueryInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits, NULL);
    limits.BasicLimitInformation.LimitFlags |= JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK;
    SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits);
    return job;
}

static HANDLE inheritable(DWORD which) {
    HANDLE ours = GetStdHandle(which), copy = NULL, process = GetCurrentProcess();
    if (ours && ours != INVALID_HANDLE_VALUE)
        DuplicateHandle(process, ours, process, &copy, 0, TRUE, DUPLICATE_SAME_ACCESS);
    return copy;
}

int wmain(void) {
    STARTUPINFOW startup;
    PROCESS_INFORMATION child;
    DWORD code;
    int tries = 1;
    HANDLE job = job_that_ends_with_us();

    GetModuleFileNameW(NULL, self, PATH_LENGTH);
    wcscpy(folder, self);
    to_parent(folder);
    to_parent(folder);
    wcscat(folder, L"\\pyvenv.cfg");
    if (!read_home(folder)) {
        fwprintf(stderr, L"No pyvenv.cfg file\n");
        return 106;
    }
    swprintf(command, 2 * PATH_LENGTH, L"\"%ls\\python.exe\"%ls", home, arguments());
    SetEnvironmentVariableW(L"__PYVENV_LAUNCHER__", self);
    memset(&startup, 0, sizeof startup);
    GetStartupInfoW(&startup);
    startup.cb = sizeof startup;
    startup.dwFlags |= STARTF_USESTDHANDLES;
    startup.hStdInput = inheritable(STD_INPUT_HANDLE);
    startup.hStdOutput = inheritable(STD_OUTPUT_HANDLE);
    startup.hStdError = inheritable(STD_ERROR_HANDLE);
    SetConsoleCtrlHandler(ignore, TRUE);
    while (!CreateProcessW(NULL, command, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &child)) {
        if (tries++ == TRIES) {
            fwprintf(stderr, L"Unable to create process using '%ls' (%lu)\n", command, GetLastError());
            return 101;
        }
        Sleep(PAUSE_MS);
    }
    AssignProcessToJobObject(job, child.hProcess);
    CloseHandle(child.hThread);
    WaitForSingleObjectEx(child.hProcess, INFINITE, FALSE);
    GetExitCodeProcess(child.hProcess, &code);
    return (int)code;
}
