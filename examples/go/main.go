// A Go program on the engine: text from a model, steered by a plan.
//
//	steer MODEL DICTIONARY PLAN PROMPT [MAX_TOKENS [SEED]]
//
// Greedy; with a SEED, sampled at temperature 0.8 from the upper 95 % of the probability. examples/build.sh compiles it.
package main

import (
	"fmt"
	"os"
	"strconv"
	"tiller"
)

func steer(modelFile, dictionaryFile, planFile, prompt string, options tiller.GenerateOptions) error {
	engine, err := tiller.OpenEngine(modelFile, tiller.EngineOptions{Context: 2048})
	if err != nil {
		return err
	}
	defer engine.Close()
	dictionary, err := tiller.OpenDictionary(dictionaryFile)
	if err != nil {
		return err
	}
	plan, err := tiller.OpenPlan(planFile)
	if err != nil {
		return err
	}
	named := []tiller.Named{{Name: "", Dictionary: dictionary}}
	target, err := engine.Target()
	if err != nil {
		return err
	}
	compiled, err := plan.Compile(named, target, tiller.Auto)
	if err != nil {
		return err
	}
	if err := engine.SetPlan(compiled); err != nil {
		return err
	}
	_, err = engine.Generate(prompt, options, func(piece string) bool {
		_, err := os.Stdout.WriteString(piece)
		return err == nil
	})
	if err != nil {
		return err
	}
	fmt.Println()
	report, err := engine.Finish()
	fmt.Fprintf(os.Stderr, "%d rows seen, %d edited, %d not needed, %d refused\n",
		report.RowsSeen, report.RowsEdited, report.RowsNotNeeded, report.RowsRefused)
	return err
}

func main() {
	options := tiller.GenerateOptions{MaxTokens: 100}
	if len(os.Args) > 5 {
		n, err := strconv.Atoi(os.Args[5])
		if err != nil || n <= 0 {
			fmt.Fprintln(os.Stderr, "error: MAX_TOKENS must be a number above 0")
			os.Exit(2)
		}
		options.MaxTokens = n
	}
	if len(os.Args) > 6 {
		seed, err := strconv.ParseUint(os.Args[6], 10, 32)
		if err != nil {
			fmt.Fprintln(os.Stderr, "error: SEED must be a number from 0")
			os.Exit(2)
		}
		options.Temperature, options.TopP, options.Seed = 0.8, 0.95, uint32(seed)
	}
	if len(os.Args) < 5 {
		fmt.Fprintf(os.Stderr, "usage: %s MODEL DICTIONARY PLAN PROMPT [MAX_TOKENS [SEED]]\n", os.Args[0])
		os.Exit(2)
	}
	if err := steer(os.Args[1], os.Args[2], os.Args[3], os.Args[4], options); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
