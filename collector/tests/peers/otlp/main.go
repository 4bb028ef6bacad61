// Sends profiles as OpenTelemetry's Collector does, with its own messages and client, and prints what it is answered as JSON.
//
//	otlp grpc ADDRESS|http URL HOST TIME_UNIX_NS TOKEN|- whole|broken
//
// They are of two services on a host: one that ran for 3 samples of 50 ms in a function, and one that waited 700 ms; and, where a part is to be
// broken, a third that refers to a stack that is not there.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
)

type answer struct {
	Error    string `json:"error"`
	Rejected int64  `json:"rejected"`
	Message  string `json:"message"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 6 {
		return errors.New("otlp grpc ADDRESS|http URL HOST TIME_UNIX_NS TOKEN|- whole|broken")
	}
	start, err := strconv.ParseUint(arguments[3], 10, 64)
	if err != nil {
		return err
	}
	request := pprofileotlp.NewExportRequestFromProfiles(profiles(arguments[2], start, arguments[5] == "broken"))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	send := overHTTP
	if arguments[0] == "grpc" {
		send = overGRPC
	}
	response, err := send(ctx, arguments[1], arguments[4], request)
	told := answer{}
	if err != nil {
		told.Error = err.Error()
	} else {
		told.Rejected, told.Message = response.PartialSuccess().RejectedProfiles(), response.PartialSuccess().ErrorMessage()
	}
	return json.NewEncoder(os.Stdout).Encode(told)
}

func overGRPC(ctx context.Context, address, token string, request pprofileotlp.ExportRequest) (pprofileotlp.ExportResponse, error) {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return pprofileotlp.ExportResponse{}, err
	}
	defer connection.Close()
	if token != "-" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	return pprofileotlp.NewGRPCClient(connection).Export(ctx, request, grpc.UseCompressor("gzip"))
}

func overHTTP(ctx context.Context, url, token string, request pprofileotlp.ExportRequest) (pprofileotlp.ExportResponse, error) {
	response := pprofileotlp.NewExportResponse()
	body, err := request.MarshalProto()
	if err != nil {
		return response, err
	}
	sent, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1development/profiles", bytes.NewReader(body))
	if err != nil {
		return response, err
	}
	sent.Header.Set("Content-Type", "application/x-protobuf")
	if token != "-" {
		sent.Header.Set("Authorization", "Bearer "+token)
	}
	answered, err := http.DefaultClient.Do(sent)
	if err != nil {
		return response, err
	}
	defer answered.Body.Close()
	told, err := io.ReadAll(answered.Body)
	if err != nil {
		return response, err
	}
	if answered.StatusCode != http.StatusOK {
		return response, fmt.Errorf("status %d: %q", answered.StatusCode, told)
	}
	return response, response.UnmarshalProto(told)
}

type names struct {
	pprofile.ProfilesDictionary
	known map[string]int32
}

func (n *names) text(text string) int32 {
	if index, ok := n.known[text]; ok {
		return index
	}
	n.StringTable().Append(text)
	n.known[text] = int32(n.StringTable().Len() - 1)
	return n.known[text]
}

func (n *names) attribute(name, value string) int32 {
	attribute := n.AttributeTable().AppendEmpty()
	attribute.SetKeyStrindex(n.text(name))
	attribute.Value().SetStr(value)
	return int32(n.AttributeTable().Len() - 1)
}

// A place in a function, in a file or in the kernel.
func (n *names) location(function, frameType string, mapping int32) int32 {
	entry := n.FunctionTable().AppendEmpty()
	entry.SetNameStrindex(n.text(function))
	entry.SetFilenameStrindex(n.text(function + ".c"))
	location := n.LocationTable().AppendEmpty()
	location.SetMappingIndex(mapping)
	location.SetAddress(0x1000)
	location.AttributeIndices().Append(n.attribute("profile.frame.type", frameType))
	line := location.Lines().AppendEmpty()
	line.SetFunctionIndex(int32(n.FunctionTable().Len() - 1))
	line.SetLine(7)
	return int32(n.LocationTable().Len() - 1)
}

// A stack, leaf first.
func (n *names) stack(locations ...int32) int32 {
	n.StackTable().AppendEmpty().LocationIndices().Append(locations...)
	return int32(n.StackTable().Len() - 1)
}

func profiles(host string, start uint64, isBroken bool) pprofile.Profiles {
	all := pprofile.NewProfiles()
	n := &names{all.Dictionary(), map[string]int32{}}
	n.text("")
	n.MappingTable().AppendEmpty()
	n.LocationTable().AppendEmpty()
	n.FunctionTable().AppendEmpty()
	n.LinkTable().AppendEmpty()
	n.AttributeTable().AppendEmpty()
	n.StackTable().AppendEmpty()
	mapping := n.MappingTable().AppendEmpty()
	mapping.SetFilenameStrindex(n.text("/usr/bin/shopd"))
	mapping.AttributeIndices().Append(n.attribute("process.executable.build_id.gnu", "00ff10"))
	main := n.location("main", "native", 1)
	work := n.location("work", "native", 1)
	sleep := n.location("do_sleep", "kernel", 0)

	profile := func(service, sampleType, unit string) pprofile.Profile {
		resource := all.ResourceProfiles().AppendEmpty()
		resource.Resource().Attributes().PutStr("host.name", host)
		resource.Resource().Attributes().PutStr("service.name", service)
		resource.Resource().Attributes().PutStr("k8s.pod.name", service+"-0")
		profile := resource.ScopeProfiles().AppendEmpty().Profiles().AppendEmpty()
		profile.SetTime(pcommon.Timestamp(start))
		profile.SetDurationNano(5_000_000_000)
		profile.SetProfileID(pprofile.ProfileID([16]byte{1, byte(all.ResourceProfiles().Len())}))
		profile.SampleType().SetTypeStrindex(n.text(sampleType))
		profile.SampleType().SetUnitStrindex(n.text(unit))
		return profile
	}
	running := profile("shop", "samples", "count")
	running.PeriodType().SetTypeStrindex(n.text("cpu"))
	running.PeriodType().SetUnitStrindex(n.text("nanoseconds"))
	running.SetPeriod(50_000_000)
	sample := running.Samples().AppendEmpty()
	sample.SetStackIndex(n.stack(work, main))
	sample.Values().Append(3)
	sample.AttributeIndices().Append(n.attribute("thread.name", "worker-17"))

	waiting := profile("cart", "events", "nanoseconds")
	sample = waiting.Samples().AppendEmpty()
	sample.SetStackIndex(n.stack(sleep, main))
	sample.Values().Append(700_000_000)

	if isBroken {
		broken := profile("broken", "samples", "count")
		sample = broken.Samples().AppendEmpty()
		sample.SetStackIndex(1000)
		sample.Values().Append(1)
	}
	return all
}
