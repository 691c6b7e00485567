// Command example gives an agent work, follows it to its end and reads what it said.
//
// Usage: go run ./example SERVER IDENTITY AGENT
// For example: go run ./example localhost:7444 ../../site/identities/operator-admin first
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"example.org/fleetwright/client"
	fleetwright "example.org/fleetwright/gen/fleetwright/v1"
)

// Deadline of a call that is no watch: without one a lost packet can hold a program for minutes.
const deadline = 15 * time.Second

// online yields every agent that matches the filter, page by page.
func online(ctx context.Context, agents fleetwright.AgentRegistryServiceClient) iter.Seq2[*fleetwright.Agent, error] {
	return func(yield func(*fleetwright.Agent, error) bool) {
		request := &fleetwright.ListAgentsRequest{Filter: "presence = ONLINE", PageSize: 500}
		for {
			page, err := listPage(ctx, agents, request)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, agent := range page.Agents {
				if !yield(agent, nil) {
					return
				}
			}
			if request.PageToken = page.NextPageToken; request.PageToken == "" {
				return
			}
		}
	}
}

func listPage(
	ctx context.Context, agents fleetwright.AgentRegistryServiceClient, request *fleetwright.ListAgentsRequest,
) (*fleetwright.ListAgentsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	return agents.ListAgents(ctx, request)
}

// create queues a script. With the same requestID a repetition gives the first task again, not a second one.
func create(
	ctx context.Context, tasks fleetwright.TaskServiceClient, agent, requestID string,
) (*fleetwright.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	script := &fleetwright.ScriptSpec{Interpreter: "sh", Body: "uname -sr; echo done"}
	answer, err := tasks.CreateTask(ctx, &fleetwright.CreateTaskRequest{
		Agent:     "agents/" + agent,
		Spec:      &fleetwright.TaskSpec{Kind: &fleetwright.TaskSpec_Script{Script: script}},
		RequestId: requestID,
	})
	return answer.GetTask(), err
}

// toTheEnd returns the task once it is final; a watch that is lost goes on from its last resume token.
func toTheEnd(ctx context.Context, tasks fleetwright.TaskServiceClient, name string) (*fleetwright.Task, error) {
	request := &fleetwright.WatchTasksRequest{
		Filter: fmt.Sprintf("task_id = %q", strings.TrimPrefix(name, "tasks/")),
	}
	for {
		task, err := watch(ctx, tasks, request)
		if err == nil {
			return task, nil
		}
		failure := client.FailureOf(err)
		if failure.Code != codes.Unavailable && !errors.Is(err, io.EOF) {
			return nil, err
		}
		pause := max(failure.RetryAfter, time.Second)
		pause += mathrand.N(pause) // many clients should not come back at once
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// watch reads one watch, to the end of the task or of the watch; the request keeps the resume token.
func watch(
	ctx context.Context, tasks fleetwright.TaskServiceClient, request *fleetwright.WatchTasksRequest,
) (*fleetwright.Task, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, err := tasks.WatchTasks(ctx, request)
	if err != nil {
		return nil, err
	}
	for {
		change, err := changes.Recv()
		if err != nil {
			return nil, err
		}
		if change.ResumeToken != "" {
			request.ResumeToken = change.ResumeToken
		}
		if change.ChangeType == fleetwright.ChangeType_CHANGE_TYPE_SYNCED {
			continue // all that there was has been sent; what follows are changes
		}
		fmt.Println("now:", change.Task.State)
		if change.Task.State >= fleetwright.TaskState_TASK_STATE_SUCCEEDED {
			return change.Task, nil
		}
	}
}

// output returns what the task wrote, standard output and standard error as they came.
func output(ctx context.Context, tasks fleetwright.TaskServiceClient, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	pieces, err := tasks.ReadTaskOutput(ctx, &fleetwright.ReadTaskOutputRequest{Name: name})
	if err != nil {
		return "", err
	}
	var said strings.Builder
	for {
		piece, err := pieces.Recv()
		if errors.Is(err, io.EOF) {
			return said.String(), nil
		}
		if err != nil {
			return "", err
		}
		said.Write(piece.Data)
	}
}

func run(ctx context.Context, server, identity, agent string) error {
	connection, err := client.Connect(server, identity)
	if err != nil {
		return err
	}
	defer connection.Close()
	agents := fleetwright.NewAgentRegistryServiceClient(connection)
	tasks := fleetwright.NewTaskServiceClient(connection)
	for found, err := range online(ctx, agents) {
		if err != nil {
			return err
		}
		fmt.Println("online:", found.AgentId, found.GetHost().GetHostname())
	}
	requestID := rand.Text() // kept with the job that it belongs to
	task, err := create(ctx, tasks, agent, requestID)
	if err != nil {
		return err
	}
	fmt.Println("created:", task.Name)
	again, err := create(ctx, tasks, agent, requestID)
	if err != nil {
		return err
	}
	fmt.Println("again the same:", again.Name == task.Name)
	ended, err := toTheEnd(ctx, tasks, task.Name)
	if err != nil {
		return err
	}
	fmt.Println("ended:", ended.State)
	said, err := output(ctx, tasks, task.Name)
	if err != nil {
		return err
	}
	fmt.Printf("output: %q\n", strings.Split(strings.TrimSpace(said), "\n"))
	_, err = listPage(ctx, agents, &fleetwright.ListAgentsRequest{Filter: "hostnam = web1"})
	failure := client.FailureOf(err)
	fmt.Println("refused:", failure.Reason, failure.Code, failure.Message)
	return nil
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: go run ./example SERVER IDENTITY AGENT")
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}
