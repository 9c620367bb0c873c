// Says of addresses of its own text what Go's runtime knows of them: for each line of hexadecimal address on the standard input, a
// line of function, file and line number for each function that is inlined there, innermost first, separated by tabs.
//
// Without input it does what its packages are here for: they are text to ask about.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"text/template"
	_ "unsafe"
)

// What runtime/pprof has its stacks' innermost frame expanded with.
//
//go:linkname expand runtime/pprof.runtime_expandFinalInlineFrame
func expand(stack []uintptr) []uintptr

type pair[A, B any] struct {
	first  A
	second B
}

func mapped[A, B any](all []A, change func(A) B) []pair[A, B] {
	var found []pair[A, B]
	for _, one := range all {
		found = append(found, pair[A, B]{one, change(one)})
	}
	return found
}

func everything() {
	text, _ := json.Marshal(mapped([]string{"1", "22"}, func(text string) int { return len(text) }))
	number, _ := new(big.Int).SetString("123456789123456789", 10)
	words := regexp.MustCompile(`\d+`).FindAllString(fmt.Sprint(number, string(text)), -1)
	page := template.Must(template.New("page").Parse("{{range .}}{{.}} {{end}}"))
	defer fmt.Println()
	page.Execute(os.Stdout, words)
}

func describe(address uintptr) string {
	var lines []string
	// Return addresses are what the runtime knows: the call lies a byte before.
	stack := make([]uintptr, 1, 64)
	stack[0] = address + 1
	frames := runtime.CallersFrames(expand(stack))
	for {
		frame, more := frames.Next()
		lines = append(lines, fmt.Sprintf("%s\t%s\t%d", frame.Function, frame.File, frame.Line))
		if !more {
			return strings.Join(lines, "\t")
		}
	}
}

func main() {
	input, answered := bufio.NewScanner(os.Stdin), false
	output := bufio.NewWriter(os.Stdout)
	for input.Scan() {
		address, err := strconv.ParseUint(input.Text(), 16, 64)
		if err != nil {
			panic(err)
		}
		fmt.Fprintln(output, describe(uintptr(address)))
		answered = true
	}
	output.Flush()
	if !answered {
		everything()
	}
}
