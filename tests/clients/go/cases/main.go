// Cases for the Go clients. Prints a line for each, which the tests read: "ok NAME" or "failed NAME: why".
//
// Arguments: a node's Flight address, its HTTP address, the same two of a node that wants tokens, a token that may write;
// or, to write rows while a node is killed: "stream", addresses by commas, how many rows.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

var flightAddress, httpAddress, guardedFlight, guardedHTTP, token string

type namedCase struct {
	name string
	run  func() error
}

func main() {
	if os.Args[1] == "stream" {
		if err := stream(strings.Split(os.Args[2], ","), os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flightAddress, httpAddress, guardedFlight, guardedHTTP, token = os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	failed := false
	for _, each := range [][]namedCase{adbcCases, databaseSQLCases, flightSQLCases, lineCases} {
		for _, one := range each {
			if err := guarded(one.run); err != nil {
				failed = true
				fmt.Printf("failed %s: %s\n", one.name, strings.ReplaceAll(err.Error(), "\n", " "))
			} else {
				fmt.Printf("ok %s\n", one.name)
			}
		}
	}
	if failed {
		os.Exit(1)
	}
}

// guarded turns a panic of a driver into an error of its case.
func guarded(run func() error) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panicked: %v %s", panicked, debug.Stack())
		}
	}()
	return run()
}

func equal[T any](what string, wanted, got T) error {
	if fmt.Sprint(wanted) != fmt.Sprint(got) {
		return fmt.Errorf("%s: wanted %v, got %v", what, wanted, got)
	}
	return nil
}

// failsWith returns an error unless err is one that contains part.
func failsWith(part string, err error) error {
	if err == nil {
		return fmt.Errorf("wanted an error with %q, got none", part)
	}
	if !strings.Contains(err.Error(), part) {
		return fmt.Errorf("wanted an error with %q, got %w", part, err)
	}
	return nil
}

// all is the first error of several checks that were made already.
func all(checks ...error) error {
	return errors.Join(checks...)
}
