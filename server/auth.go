package server

import (
	"context"
	"strings"

	mwauth "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/auth"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "modelgate/proto/modelgate/v1"
)

// An authorizer decides who may call what. REST calls reach it too, since they go through a gRPC server of their own.
//
//	grpc.health.v1          open
//	predictions             open without a token file, or with OpenPredictions; else a token
//	calls that change       a token; without a token file only on loopback
//	everything else         open without a token file; else a token
//
// With mTLS the connection itself was checked before.
type authorizer struct {
	tokens          *tokenFile // nil: no token file
	openPredictions bool
	private         bool // only this machine can reach the address that was called
}

// access is what a method needs.
type access int

const (
	reading access = iota
	open
	predicting
	changing
)

func accessOf(method string) access {
	switch method {
	case pb.ModelService_Refresh_FullMethodName, pb.ModelService_Promote_FullMethodName, pb.ModelService_Rollback_FullMethodName,
		pb.ModelService_Pin_FullMethodName, pb.ModelService_Unpin_FullMethodName:
		return changing
	}
	switch service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/"); service {
	case healthpb.Health_ServiceDesc.ServiceName:
		return open
	case pb.PredictionService_ServiceDesc.ServiceName:
		return predicting
	}
	return reading
}

// authorize is the interceptors' AuthFunc.
func (a *authorizer) authorize(ctx context.Context) (context.Context, error) {
	method, _ := grpc.Method(ctx)
	need := accessOf(method)
	switch {
	case need == open, need == predicting && a.openPredictions, a.tokens == nil && need != changing, a.tokens == nil && a.private:
		return ctx, nil
	case a.tokens == nil:
		return nil, newStatus(kind{code: codes.PermissionDenied, reason: "TOKEN_FILE_NEEDED"},
			"calls that change something are refused on an address that other machines can reach, until the server has a token file", nil)
	}
	token, err := mwauth.AuthFromMD(ctx, "bearer")
	if err != nil {
		return nil, newStatus(kind{code: codes.Unauthenticated, reason: "TOKEN_MISSING"},
			`a bearer token is needed: send "authorization: Bearer TOKEN"`, nil)
	}
	if !a.tokens.has(token) {
		return nil, newStatus(kind{code: codes.Unauthenticated, reason: "TOKEN_WRONG"}, "the bearer token is not one of the server's", nil)
	}
	return ctx, nil
}
