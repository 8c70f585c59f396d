package ort

/*
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
static void give_back(void) { malloc_trim(0); }
#else
static void give_back(void) {}
#endif
*/
import "C"

// trim gives freed memory back to the system. Without it glibc keeps a closed graph's weights, and cycles of loading and closing
// grow the process.
func trim() { C.give_back() }

// Trim gives memory that loading a graph took and left back to the system.
func Trim() { trim() }
