package main

// faults are the ways in which the program is broken, one at a time.
var faults = []fault{}
