/**
 * Gives an agent work, follows it to its end and reads what it said.
 *
 * Usage: node dist/src/example.js SERVER IDENTITY AGENT
 * For example: node dist/src/example.js localhost:7444 ../../site/identities/operator-admin first
 */
import { randomUUID } from "node:crypto";
import { type Agent, AgentRegistryServiceClient, ChangeType, ListAgentsRequest } from "../gen/fleetwright/v1/agent_registry_service.js";
import {
  CreateTaskRequest,
  ReadTaskOutputRequest,
  type Task,
  TaskServiceClient,
  TaskState,
  WatchTasksRequest,
} from "../gen/fleetwright/v1/task_service.js";
import { call, failureOf, identity, messages, OPTIONS } from "./fleetwright.js";

/** Yields every agent that matches the filter, page by page. */
async function* online(agents: AgentRegistryServiceClient): AsyncGenerator<Agent> {
  let pageToken = "";
  do {
    const request = ListAgentsRequest.fromPartial({ filter: "presence = ONLINE", pageSize: 500, pageToken });
    const page = await call(agents.listAgents.bind(agents), request);
    yield* page.agents;
    pageToken = page.nextPageToken;
  } while (pageToken);
}

/** Queues a script. With the same requestId a repetition gives the first task again, not a second one. */
async function create(tasks: TaskServiceClient, agent: string, requestId: string): Promise<Task> {
  const request = CreateTaskRequest.fromPartial({
    agent: `agents/${agent}`,
    spec: { kind: { $case: "script", value: { interpreter: "sh", body: "uname -sr; echo done" } } },
    requestId,
  });
  const { task } = await call(tasks.createTask.bind(tasks), request);
  if (!task) throw new Error("the server answered without a task");
  return task;
}

/** Returns the task once it is final; a watch that is lost goes on from its last resume token. */
async function toTheEnd(tasks: TaskServiceClient, name: string): Promise<Task> {
  const filter = `task_id = "${name.replace("tasks/", "")}"`;
  let resumeToken = "";
  for (;;) {
    let pause = 1;
    try {
      const request = WatchTasksRequest.fromPartial({ filter, resumeToken });
      for await (const change of messages(tasks.watchTasks(request))) {
        resumeToken = change.resumeToken || resumeToken;
        if (change.changeType === ChangeType.CHANGE_TYPE_SYNCED || !change.task) continue;
        console.log("now:", TaskState[change.task.state]);
        if (change.task.state >= TaskState.TASK_STATE_SUCCEEDED) return change.task;
      }
    } catch (error) {
      const failure = failureOf(error);
      if (failure?.code !== "UNAVAILABLE") throw error;
      pause = failure.retryAfter ?? pause;
    }
    const jitter = 1 + Math.random(); // many clients should not come back at once
    await new Promise((resolve) => setTimeout(resolve, pause * jitter * 1000));
  }
}

/** Returns what the task wrote, standard output and standard error as they came. */
async function output(tasks: TaskServiceClient, name: string): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of messages(tasks.readTaskOutput(ReadTaskOutputRequest.fromPartial({ name })))) {
    pieces.push(piece.data);
  }
  return Buffer.concat(pieces).toString("utf-8");
}

const [server, folder, agent] = process.argv.slice(2);
if (!server || !folder || !agent) throw new Error("usage: node dist/src/example.js SERVER IDENTITY AGENT");
const agents = new AgentRegistryServiceClient(server, identity(folder), OPTIONS);
const tasks = new TaskServiceClient(server, identity(folder), OPTIONS);

for await (const found of online(agents)) console.log("online:", found.agentId, found.host?.hostname);
const requestId = randomUUID(); // kept with the job that it belongs to
const { name } = await create(tasks, agent, requestId);
console.log("created:", name);
console.log("again the same:", (await create(tasks, agent, requestId)).name === name);
console.log("ended:", TaskState[(await toTheEnd(tasks, name)).state]);
console.log("output:", (await output(tasks, name)).trimEnd().split("\n"));
try {
  await call(agents.listAgents.bind(agents), ListAgentsRequest.fromPartial({ filter: "hostnam = web1" }));
} catch (error) {
  const failure = failureOf(error);
  if (!failure) throw error;
  console.log("refused:", failure.reason, failure.code, failure.message);
}
agents.close();
tasks.close();
