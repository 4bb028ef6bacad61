// Checks what Prometheus and Grafana are given, as Prometheus reads it: alert rules, a dashboard, and the page of metrics that they are about.
//
//	rules RULES DASHBOARD METRICS
//
// Prints, as JSON, the names of metrics that the rules and the dashboard ask for, and those that the page has.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

type told struct {
	Rules    int             `json:"rules"`
	Panels   int             `json:"panels"`
	Wanted   map[string]bool `json:"wanted"`
	Provided map[string]int  `json:"provided"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 3 {
		return errors.New("rules RULES DASHBOARD METRICS")
	}
	found := told{Wanted: map[string]bool{}, Provided: map[string]int{}}
	promql := parser.NewParser(parser.Options{})
	groups, failures := rulefmt.ParseFile(arguments[0], false, model.UTF8Validation, promql, slog.New(slog.DiscardHandler))
	if len(failures) > 0 {
		return errors.Join(failures...)
	}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			found.Rules++
			if err := names(promql, rule.Expr, found.Wanted); err != nil {
				return err
			}
		}
	}
	text, err := os.ReadFile(arguments[1])
	if err != nil {
		return err
	}
	var dashboard struct {
		Panels []struct {
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		return err
	}
	for _, panel := range dashboard.Panels {
		found.Panels++
		for _, target := range panel.Targets {
			// Grafana puts these in before it asks.
			expression := strings.NewReplacer("$__range", "1h", "$host", ".*", "$service", ".*").Replace(target.Expr)
			if err := names(promql, expression, found.Wanted); err != nil {
				return err
			}
		}
	}
	page, err := os.Open(arguments[2])
	if err != nil {
		return err
	}
	defer page.Close()
	reader := expfmt.NewTextParser(model.UTF8Validation)
	families, err := reader.TextToMetricFamilies(page)
	if err != nil {
		return err
	}
	for name, family := range families {
		found.Provided[name] = len(family.Metric)
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

func names(promql parser.Parser, expression string, wanted map[string]bool) error {
	parsed, err := promql.ParseExpr(expression)
	if err != nil {
		return fmt.Errorf("%s: %w", expression, err)
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			wanted[selector.Name] = true
		}
		return nil
	})
	return nil
}
