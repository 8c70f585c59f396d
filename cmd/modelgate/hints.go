package main

import (
	"os"
	"strings"
)

// commandsFor are command lines to try next: this program as it was started, so that they work where it isn't on the PATH, each command
// with the address of the gateway at addr unless that is the default. What a command takes follows its name after a space.
func commandsFor(addr string, commands ...string) []string {
	flag := ""
	if addr != defaultAddr {
		flag = " --addr " + addr
	}
	var lines []string
	for _, c := range commands {
		name, args, _ := strings.Cut(c, " ")
		lines = append(lines, strings.TrimSpace(os.Args[0]+" "+name+flag+" "+args))
	}
	return lines
}
