// Submits an image, waits for its report and reads an error, with types from the OpenAPI document alone.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };
declare const Buffer: { from(text: string, encoding: "base64"): Uint8Array<ArrayBuffer> };

const [url, image] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl: url });
const file = new Blob([Buffer.from(image, "base64")], { type: "image/png" });

const form: components["schemas"]["JobForm"] = { file: "", priority: "stat" };
const sent = await client.POST("/v1/jobs", {
  body: form,
  bodySerializer: (fields) => {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) body.append(name, name === "file" ? file : String(value));
    return body;
  },
});
if (!sent.data) throw new Error(sent.error.detail);

const ended = await client.GET("/v1/jobs/{id}", { params: { path: { id: sent.data.id }, query: { wait: 30 } } });
const impression: string | undefined = ended.data?.report?.impression;

const unknown = await client.GET("/v1/jobs/{id}", { params: { path: { id: "unknown" } } });
const problem: components["schemas"]["ProblemDocument"] | undefined = unknown.error;

const event: components["schemas"]["JobEvent"]["type"] = "job.succeeded";
console.log(JSON.stringify([ended.data?.priority, impression, problem?.type, event]));
