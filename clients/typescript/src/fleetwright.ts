/** What every client needs: an identity, calls with a deadline, and errors in a form to decide by. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  credentials,
  Metadata,
  status,
  type CallOptions,
  type ChannelCredentials,
  type ChannelOptions,
  type ClientReadableStream,
  type ClientUnaryCall,
  type ServiceError,
} from "@grpc/grpc-js";
import { BadRequest, ErrorInfo, RetryInfo } from "../gen/google/rpc/error_details.js";
import { Status } from "../gen/google/rpc/status.js";

/** Milliseconds for a call that is no watch: without a deadline a lost packet can hold a program for minutes. */
export const DEADLINE = 15_000;

/** Arguments of every channel: a silent watch is pinged, so that a dead server is found. */
export const OPTIONS: ChannelOptions = {
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 15_000,
  "grpc.max_receive_message_length": 16 * 1024 * 1024,
};

/** Reads the folder of an identity: key.pem, cert.pem and ca.pem. */
export function identity(folder: string): ChannelCredentials {
  const [root, key, certificate] = ["ca.pem", "key.pem", "cert.pem"].map((name) => readFileSync(join(folder, name)));
  return credentials.createSsl(root, key, certificate);
}

type Unary<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall;

/** Makes one call, with a deadline: `await call(client.listAgents.bind(client), request)`. */
export function call<Request, Response>(method: Unary<Request, Response>, request: Request): Promise<Response> {
  return new Promise((resolve, reject) => {
    method(request, new Metadata(), { deadline: Date.now() + DEADLINE }, (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}

/** Reads a stream until its end, or until the loop is left; then it is cancelled. */
export async function* messages<Message>(stream: ClientReadableStream<Message>): AsyncGenerator<Message> {
  try {
    for await (const message of stream) yield message as Message;
  } finally {
    stream.on("error", () => undefined); // its own cancellation is no error to report
    stream.cancel();
  }
}

/** Why a call failed, as the server says it in google.rpc.Status. */
export interface Failure {
  code: string;
  /** Name of a value of ErrorReason without its prefix; empty where no server of this product answered. */
  reason: string;
  message: string;
  metadata: { [key: string]: string };
  violations: { field: string; description: string }[];
  /** Seconds after which to come back, where the server says so. */
  retryAfter: number | undefined;
}

/** Reads what a failed call says; undefined where it is not the error of a call. */
export function failureOf(error: unknown): Failure | undefined {
  if (!(error instanceof Error) || !("code" in error) || !("metadata" in error)) return undefined;
  const { code, details, metadata } = error as ServiceError;
  const failure: Failure = {
    code: status[code],
    reason: "",
    message: details,
    metadata: {},
    violations: [],
    retryAfter: undefined,
  };
  for (const bytes of metadata.get("grpc-status-details-bin")) {
    for (const { typeUrl, value } of Status.decode(bytes as Buffer).details) read(typeUrl, value, failure);
  }
  return failure;
}

function read(typeUrl: string, value: Buffer, failure: Failure): void {
  switch (typeUrl) {
    case "type.googleapis.com/google.rpc.ErrorInfo": {
      const info = ErrorInfo.decode(value);
      if (info.domain === "fleetwright") failure.reason = info.reason;
      failure.metadata = info.metadata;
      break;
    }
    case "type.googleapis.com/google.rpc.BadRequest":
      failure.violations = BadRequest.decode(value).fieldViolations;
      break;
    case "type.googleapis.com/google.rpc.RetryInfo": {
      const delay = RetryInfo.decode(value).retryDelay;
      if (delay) failure.retryAfter = Number(delay.seconds) + delay.nanos / 1e9;
    }
  }
}
