// Package client has what every program needs: an identity, a connection with mutual TLS, and errors in a form to
// decide by.
package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Domain of every ErrorInfo that the product sends.
const Domain = "fleetwright"

// Connect opens a connection to the admin port of server, HOST:PORT, with the identity of a folder: key.pem, cert.pem
// and ca.pem. It connects with the first call.
func Connect(server, folder string) (*grpc.ClientConn, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", folder, err)
	}
	root, err := os.ReadFile(filepath.Join(folder, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", folder, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		return nil, fmt.Errorf("identity %s: ca.pem is no certificate in PEM", folder)
	}
	return grpc.NewClient(server,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{pair},
			RootCAs:      roots,
			MinVersion:   tls.VersionTLS13,
		})),
		// A silent watch is pinged, so that a dead server is found.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 15 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)),
	)
}

// Failure says why a call failed.
type Failure struct {
	Code    codes.Code
	Message string
	// Reason is the name of a value of ErrorReason without its prefix; empty where no server of this product answered.
	Reason     string
	Metadata   map[string]string
	Violations []*errdetails.BadRequest_FieldViolation
	// RetryAfter is how long the server asks to wait; 0 where it does not.
	RetryAfter time.Duration
}

// FailureOf reads what a failed call says in google.rpc.Status.
func FailureOf(err error) Failure {
	said := status.Convert(err)
	failure := Failure{Code: said.Code(), Message: said.Message()}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == Domain {
				failure.Reason = detail.Reason
			}
			failure.Metadata = detail.Metadata
		case *errdetails.BadRequest:
			failure.Violations = detail.FieldViolations
		case *errdetails.RetryInfo:
			failure.RetryAfter = detail.RetryDelay.AsDuration()
		}
	}
	return failure
}
