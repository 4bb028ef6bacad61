// Package statusutil says of errors of HTTP what they are in gRPC. The Collector's receiver of OTLP imports a package of this name, which is not
// to be had from the module proxy by itself; this one is written anew, with what the receiver calls.
package statusutil

import (
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// NewStatusFromMsgAndHTTPCode is the status of a request that HTTP refuses with this code.
func NewStatusFromMsgAndHTTPCode(message string, code int) *status.Status {
	switch code {
	case http.StatusBadRequest:
		return status.New(codes.InvalidArgument, message)
	case http.StatusUnauthorized:
		return status.New(codes.Unauthenticated, message)
	case http.StatusForbidden:
		return status.New(codes.PermissionDenied, message)
	case http.StatusTooManyRequests:
		return status.New(codes.ResourceExhausted, message)
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return status.New(codes.Unavailable, message)
	default:
		return status.New(codes.Unknown, message)
	}
}

// GetRetryInfo is when to come again, where a status says so.
func GetRetryInfo(of *status.Status) *errdetails.RetryInfo {
	for _, detail := range of.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info
		}
	}
	return nil
}
