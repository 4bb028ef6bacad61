// Sends profiles as Pyroscope's clients do: through the uploader of the Go client, which uses /ingest, or by a Push.
//
//	pyroscope ingest|push|broken URL HOST TIME_UNIX_NS TOKEN|-
//
// They are of the service shop: 250 ms in 25 samples in main.work called by main.main, and 40 ms for which threads waited for a mutex there.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/google/pprof/profile"
	"github.com/grafana/pyroscope-go/upstream"
	"github.com/grafana/pyroscope-go/upstream/remote"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 5 {
		return errors.New("pyroscope ingest|push|broken URL HOST TIME_UNIX_NS TOKEN|-")
	}
	start, err := strconv.ParseInt(arguments[3], 10, 64)
	if err != nil {
		return err
	}
	cpu, err := written([]*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		[]int64{25, 250_000_000}, start)
	if err != nil {
		return err
	}
	mutex, err := written([]*profile.ValueType{{Type: "contentions", Unit: "count"}, {Type: "delay", Unit: "nanoseconds"}},
		[]int64{4, 40_000_000}, start)
	if err != nil {
		return err
	}
	token := arguments[4]
	if token == "-" {
		token = ""
	}
	if arguments[0] == "ingest" {
		err = ingest(arguments[1], arguments[2], token, time.Unix(0, start), cpu, mutex)
	} else {
		if arguments[0] == "broken" {
			mutex = mutex[:len(mutex)/2]
		}
		err = push(arguments[1], arguments[2], token, cpu, mutex)
	}
	told := map[string]string{"error": ""}
	if err != nil {
		told["error"] = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(told)
}

func written(types []*profile.ValueType, values []int64, start int64) ([]byte, error) {
	mapping := &profile.Mapping{ID: 1, Start: 0x400000, Limit: 0x800000, File: "/usr/bin/shop"}
	place := func(id uint64, name string) *profile.Location {
		function := &profile.Function{ID: id, Name: name, Filename: "main.go"}
		return &profile.Location{ID: id, Mapping: mapping, Address: 0x400000 + id, Line: []profile.Line{{Function: function, Line: 7}}}
	}
	work, main := place(1, "main.work"), place(2, "main.main")
	made := &profile.Profile{
		SampleType: types, TimeNanos: start, DurationNanos: 5_000_000_000,
		Sample:   []*profile.Sample{{Location: []*profile.Location{work, main}, Value: values}},
		Mapping:  []*profile.Mapping{mapping},
		Location: []*profile.Location{work, main}, Function: []*profile.Function{work.Line[0].Function, main.Line[0].Function},
	}
	var bytes bytes.Buffer
	err := made.Write(&bytes)
	return bytes.Bytes(), err
}

type failures struct{ last string }

func (f *failures) Infof(string, ...interface{})  {}
func (f *failures) Debugf(string, ...interface{}) {}
func (f *failures) Errorf(format string, values ...interface{}) {
	f.last = fmt.Sprintf(format, values...)
}

func ingest(url, host, token string, start time.Time, cpu, mutex []byte) error {
	log := &failures{}
	client, err := remote.NewRemote(remote.Config{
		AuthToken: token, Address: url, Threads: 1, Timeout: time.Minute, Logger: log,
	})
	if err != nil {
		return err
	}
	client.Start()
	job := upstream.UploadJob{
		Name: fmt.Sprintf("shop{hostname=%s,region=eu}", host), StartTime: start, EndTime: start.Add(5 * time.Second),
		SpyName: "gospy", SampleRate: 100, Format: upstream.FormatPprof, Profile: cpu,
	}
	client.Upload(&job)
	waits := job
	waits.Profile = mutex
	waits.SampleTypeConfig = map[string]*upstream.SampleType{
		"contentions": {DisplayName: "mutex_count", Units: "lock_samples"},
		"delay":       {DisplayName: "mutex_duration", Units: "lock_nanoseconds"},
	}
	client.Upload(&waits)
	client.Flush()
	client.Stop()
	if log.last != "" {
		return errors.New(log.last)
	}
	return nil
}

func push(url, host, token string, cpu, mutex []byte) error {
	series := func(name string, raw []byte) *pushv1.RawProfileSeries {
		return &pushv1.RawProfileSeries{
			Labels: []*typesv1.LabelPair{
				{Name: "__name__", Value: name}, {Name: "service_name", Value: "shop"},
				{Name: "hostname", Value: host}, {Name: "region", Value: "eu"},
			},
			Samples: []*pushv1.RawSample{{RawProfile: raw, ID: "7c9e6679-7425-40de-944b-e07fc1f90ae7"}},
		}
	}
	request := connect.NewRequest(&pushv1.PushRequest{
		Series: []*pushv1.RawProfileSeries{series("process_cpu", cpu), series("mutex", mutex)},
	})
	if token != "" {
		request.Header().Set("Authorization", "Bearer "+token)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := pushv1connect.NewPusherServiceClient(http.DefaultClient, url).Push(ctx, request)
	return err
}
