// Asks a collector all that Grafana's Pyroscope data source asks, with the client that it asks with, and prints the answers as JSON.
//
//	querier URL proto|json SERVICE START_MS END_MS STEP_S
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
)

type series struct {
	Labels map[string]string `json:"labels"`
	Points map[int64]float64 `json:"points"`
}

type answers struct {
	Types       []string `json:"types"`
	LabelNames  []string `json:"label_names"`
	LabelValues []string `json:"label_values"`
	Series      []series `json:"series"`
	// Of the flame graph: all, each path from the root to a node that has weight of its own, with that.
	Total int64            `json:"total"`
	Own   map[string]int64 `json:"own"`
	// Code and message of the error.
	SpanCode    string `json:"span_code"`
	SpanMessage string `json:"span_message"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 6 {
		return errors.New("querier URL proto|json SERVICE START_MS END_MS STEP_S")
	}
	var options []connect.ClientOption
	if arguments[1] == "json" {
		options = append(options, connect.WithProtoJSON())
	}
	// Small questions are compressed, too, so that this is met.
	options = append(options, connect.WithSendGzip())
	client := querierv1connect.NewQuerierServiceClient(http.DefaultClient, arguments[0], options...)
	start, startErr := strconv.ParseInt(arguments[3], 10, 64)
	end, endErr := strconv.ParseInt(arguments[4], 10, 64)
	step, stepErr := strconv.ParseFloat(arguments[5], 64)
	if err := errors.Join(startErr, endErr, stepErr); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	selector := fmt.Sprintf("{service_name=%q}", arguments[2])
	const cpu = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"

	found := answers{Own: map[string]int64{}}
	types, err := client.ProfileTypes(ctx, connect.NewRequest(&querierv1.ProfileTypesRequest{Start: start, End: end}))
	if err != nil {
		return fmt.Errorf("ProfileTypes: %w", err)
	}
	for _, one := range types.Msg.ProfileTypes {
		found.Types = append(found.Types, one.ID)
	}
	names, err := client.LabelNames(ctx, connect.NewRequest(&typesv1.LabelNamesRequest{
		Matchers: []string{selector}, Start: start, End: end,
	}))
	if err != nil {
		return fmt.Errorf("LabelNames: %w", err)
	}
	found.LabelNames = names.Msg.Names
	values, err := client.LabelValues(ctx, connect.NewRequest(&typesv1.LabelValuesRequest{
		Name: "service_name", Start: start, End: end,
	}))
	if err != nil {
		return fmt.Errorf("LabelValues: %w", err)
	}
	found.LabelValues = values.Msg.Names
	sums, err := client.SelectSeries(ctx, connect.NewRequest(&querierv1.SelectSeriesRequest{
		ProfileTypeID: cpu, LabelSelector: selector, Start: start, End: end, GroupBy: []string{"host"}, Step: step,
	}))
	if err != nil {
		return fmt.Errorf("SelectSeries: %w", err)
	}
	for _, one := range sums.Msg.Series {
		told := series{Labels: map[string]string{}, Points: map[int64]float64{}}
		for _, label := range one.Labels {
			told.Labels[label.Name] = label.Value
		}
		for _, point := range one.Points {
			told.Points[point.Timestamp] = point.Value
		}
		found.Series = append(found.Series, told)
	}
	merged, err := client.SelectMergeStacktraces(ctx, connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
		ProfileTypeID: cpu, LabelSelector: selector, Start: start, End: end,
	}))
	if err != nil {
		return fmt.Errorf("SelectMergeStacktraces: %w", err)
	}
	found.Total = merged.Msg.Flamegraph.Total
	paths(merged.Msg.Flamegraph, found.Own)
	_, err = client.SelectMergeSpanProfile(ctx, connect.NewRequest(&querierv1.SelectMergeSpanProfileRequest{
		ProfileTypeID: cpu, LabelSelector: selector, Start: start, End: end, SpanSelector: []string{"9a517183f26a089d"},
	}))
	var refused *connect.Error
	if !errors.As(err, &refused) {
		return fmt.Errorf("SelectMergeSpanProfile: %w", err)
	}
	found.SpanCode, found.SpanMessage = refused.Code().String(), refused.Message()
	return json.NewEncoder(os.Stdout).Encode(found)
}

type bar struct {
	start, end int64
	path       string
}

// Finds the caller of each bar by its place, as whoever draws them does.
func paths(graph *querierv1.FlameGraph, own map[string]int64) {
	var above []bar
	for depth, level := range graph.Levels {
		var bars []bar
		var at int64
		for node := 0; node+3 < len(level.Values); node += 4 {
			start := at + level.Values[node]
			at = start + level.Values[node+1]
			path := graph.Names[level.Values[node+3]]
			if depth > 0 {
				caller := "?"
				for _, one := range above {
					if one.start <= start && at <= one.end {
						caller = one.path
					}
				}
				path = caller + ";" + path
			}
			if level.Values[node+2] > 0 {
				own[path] += level.Values[node+2]
			}
			bars = append(bars, bar{start, at, path})
		}
		above = bars
	}
}
