import { parseLlhttp, parseOurs } from "./http1-parsers.ts";
for (const w of ["PUT / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\n\r\n"]) {
console.log(JSON.stringify(parseOurs("request",[w])));
console.log(JSON.stringify(parseLlhttp("request",w)));}
