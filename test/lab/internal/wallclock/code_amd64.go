package wallclock

// jump is what the first bytes of a function become: a jump to its replacement, whose distance follows.
var jump = []byte{0xe9}

// functions of the vDSO that tell the wall clock, and what replaces them: the system call of the same name, and an addition.
//
// CLOCK_REALTIME is 0, CLOCK_REALTIME_COARSE 5, CLOCK_TAI 11; other clocks pass unchanged.
var functions = []function{
	{"__vdso_clock_gettime", []byte{
		0xb8, 0xe4, 0, 0, 0, // mov eax, 228 (clock_gettime)
		0x0f, 0x05, // syscall
		0x85, 0xc0, // test eax, eax
		0x75, 0x18, // jne end
		0x85, 0xff, // test edi, edi
		0x74, 0x0a, // je add
		0x83, 0xff, 0x05, // cmp edi, 5
		0x74, 0x05, // je add
		0x83, 0xff, 0x0b, // cmp edi, 11
		0x75, 0x0a, // jne end
		0x4c, 0x8b, 0x1d, // add: mov r11, [rip + offset]
	}, []byte{
		0x4c, 0x01, 0x1e, // add [rsi], r11
		0xc3, // end: ret
	}},
	{"__vdso_gettimeofday", []byte{
		0xb8, 0x60, 0, 0, 0, // mov eax, 96 (gettimeofday)
		0x0f, 0x05, // syscall
		0x85, 0xc0, // test eax, eax
		0x75, 0x0f, // jne end
		0x48, 0x85, 0xff, // test rdi, rdi
		0x74, 0x0a, // je end
		0x4c, 0x8b, 0x1d, // mov r11, [rip + offset]
	}, []byte{
		0x4c, 0x01, 0x1f, // add [rdi], r11
		0xc3, // end: ret
	}},
	{"__vdso_time", []byte{
		0x57,       // push rdi
		0x31, 0xff, // xor edi, edi
		0xb8, 0xc9, 0, 0, 0, // mov eax, 201 (time)
		0x0f, 0x05, // syscall
		0x5f,             // pop rdi
		0x48, 0x03, 0x05, // add rax, [rip + offset]
	}, []byte{
		0x48, 0x85, 0xff, // test rdi, rdi
		0x74, 0x03, // je end
		0x48, 0x89, 0x07, // mov [rdi], rax
		0xc3, // end: ret
	}},
}
