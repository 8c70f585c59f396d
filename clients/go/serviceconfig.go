package modelgate

import (
	"encoding/json"

	_ "google.golang.org/grpc/health" // gRPC checks a server's health only in programs that link this package

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// method names one method, as gRPC's service config has it.
type method struct {
	Service string `json:"service"`
	Method  string `json:"method"`
}

// retryPolicy is gRPC's, with its names.
type retryPolicy struct {
	MaxAttempts          int      `json:"maxAttempts"`
	InitialBackoff       string   `json:"initialBackoff"`
	MaxBackoff           string   `json:"maxBackoff"`
	BackoffMultiplier    float64  `json:"backoffMultiplier"`
	RetryableStatusCodes []string `json:"retryableStatusCodes"`
}

type methodConfig struct {
	Name        []method     `json:"name"`
	RetryPolicy *retryPolicy `json:"retryPolicy,omitempty"`
}

type healthConfig struct {
	ServiceName string `json:"serviceName"`
}

type throttling struct {
	MaxTokens  int     `json:"maxTokens"`
	TokenRatio float64 `json:"tokenRatio"`
}

type serviceConfig struct {
	LoadBalancingConfig []map[string]struct{} `json:"loadBalancingConfig"`
	HealthCheckConfig   *healthConfig         `json:"healthCheckConfig,omitempty"`
	MethodConfig        []methodConfig        `json:"methodConfig"`
	RetryThrottling     throttling            `json:"retryThrottling"`
}

// predictionConfig is the service config of the connection for predictions.
//
// A prediction changes nothing, so it is repeated when a server was unavailable. It is not repeated on RESOURCE_EXHAUSTED: the
// server has too much to do already, and an answer over the message limit, which has the same code, would be too large again.
// Such an error tells the caller how long to wait; see RetryDelay. gRPC repeats a stream only until the first answer; after that
// only the caller knows what it still wants. An upload is repeated while gRPC still has all of it that was sent.
func predictionConfig(o Options) string {
	service := modelgatev1.PredictionService_ServiceDesc.ServiceName
	return config(o, &healthConfig{ServiceName: service},
		[]method{{service, "Predict"}, {service, "PredictBatch"}, {service, "PredictStream"}, {service, "UploadPredict"}})
}

// modelConfig is the service config of the connection for ModelService. Only what reads is repeated.
func modelConfig(o Options) string {
	service := modelgatev1.ModelService_ServiceDesc.ServiceName
	return config(o, nil, []method{{service, "ListModels"}, {service, "GetModel"}, {service, "ListVersions"}, {service, "History"}})
}

func config(o Options, health *healthConfig, repeatable []method) string {
	methods := methodConfig{Name: repeatable}
	if o.MaxAttempts > 1 {
		methods.RetryPolicy = &retryPolicy{MaxAttempts: o.MaxAttempts, InitialBackoff: "0.1s", MaxBackoff: "2s", BackoffMultiplier: 2,
			RetryableStatusCodes: []string{"UNAVAILABLE"}}
	}
	b, err := json.Marshal(serviceConfig{
		LoadBalancingConfig: []map[string]struct{}{{"round_robin": {}}},
		HealthCheckConfig:   health,
		MethodConfig:        []methodConfig{methods},
		// While most calls fail, nothing is repeated: repeats must not be what keeps a server down.
		RetryThrottling: throttling{MaxTokens: 20, TokenRatio: 0.1},
	})
	if err != nil {
		panic("modelgate: the service config can't be marshalled: " + err.Error()) // strings and numbers only
	}
	return string(b)
}
